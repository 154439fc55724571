"""`gemmaq verify`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gemmaq.cli import calibration, console
from gemmaq.cli.console import Output
from gemmaq.cli.options import (
    Base,
    Device,
    Json,
    MmprojFile,
    Threads,
    WeightFile,
    cores,
    count,
    drafted,
    opened,
    quiet_option,
)
from gemmaq.cli.views import verify as views
from gemmaq.errors import InputError, NotFoundError, UsageError, VerificationError

if TYPE_CHECKING:
    from gemmaq.calibration.complete import Basis
    from gemmaq.checkpoint import Checkpoint
    from gemmaq.convert.run import Options
    from gemmaq.verify.against import Comparison
    from gemmaq.verify.examine import Report
    from gemmaq.verify.running import Outcome
    from gemmaq.verify.running import Wish as RunWish


def verify(
    *,
    artifact: Annotated[
        Path,
        typer.Argument(
            metavar="ARTIFACT", help="A folder that gemmaq convert made, with one artifact or several, or a .gguf file."
        ),
    ],
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            metavar="SOURCE",
            help="Convert this source again, compare all bytes, and measure the error of the weights.",
        ),
    ] = None,
    draft: Annotated[
        str | None,
        typer.Option("--draft", metavar="SOURCE", help="With --against: source of the drafter beside the model."),
    ] = None,
    text: Annotated[
        list[Path] | None,
        typer.Option(
            "--text",
            metavar="FILE",
            help="With --against: text that the artifact was calibrated on; can be repeated, in the same order.",
        ),
    ] = None,
    imatrix: Annotated[
        Path | None,
        typer.Option(
            "--imatrix", metavar="FILE", help="With --against: importance matrix that the artifact was made with."
        ),
    ] = None,
    own_card: Annotated[
        bool,
        typer.Option("--own-card", help="With --against: you changed the model card, so that it is not compared."),
    ] = False,
    mmproj_file: MmprojFile = None,
    weights: WeightFile = None,
    base: Base = None,
    run: Annotated[
        bool,
        typer.Option(
            "--run", help="Decode a few tokens in an installed runtime, and compare with what gemmaq computes."
        ),
    ] = False,
    runtime: Annotated[
        str | None,
        typer.Option(
            "--runtime",
            metavar="NAME",
            help="Runtime for --run: xllamacpp or llama-server (GGUF), mlx-lm (MLX), transformers or vllm "
            "(safetensors). Default: the first of these that is installed.",
        ),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            "--prompt",
            metavar="TEXT",
            help="With --run: text to continue; what a chat model is asked. Default: the four seasons.",
        ),
    ] = None,
    tokens: Annotated[
        int | None,
        typer.Option("--tokens", metavar="N", parser=count(1), help="With --run: number of tokens. Default: 16."),
    ] = None,
    device: Device = None,
    threads: Threads = None,
    as_json: Json = False,
    quiet: Annotated[bool, quiet_option("problems, one a line")] = False,
) -> None:
    """Check an artifact, or compare it with its source.

    Digests, headers, tokenizer, projector and drafter are checked, without SHA256SUMS and gemmaq.json as far as
    possible.
    With --against the source is converted again: every byte is compared, and the error of the weights is measured.
    With --run a runtime decodes greedily: each token has to be the best by the file's own weights, or next to it.
    """
    from gemmaq import jit
    from gemmaq.verify.examine import examine

    flags: dict[str, object] = {"--text": text, "--imatrix": imatrix, "--draft": draft, "--mmproj-file": mmproj_file}
    flags |= {"--weights": weights, "--base": base, "--own-card": own_card}
    given = [flag for flag, value in flags.items() if value]
    if against is None and given:
        raise UsageError(f"{given[0]} needs --against SOURCE")
    if text and imatrix:
        raise UsageError("--text and --imatrix exclude each other", "give the one that gemmaq.json names")
    wish = _wish(run or runtime is not None, runtime, prompt, tokens, threads)
    shown = Output("verify", as_json, quiet)
    jit.watch(console.waiting.compiling)
    with console.progress(f"reading {artifact}", shown.silent) as progress:
        reports = examine(artifact, progress)
    comparisons: list[Comparison | None] = [None] * len(reports)
    source = None
    if against is not None:
        from gemmaq.convert.run import Options
        from gemmaq.sources.companions import Need, Wish

        drafts = any(report.has_drafter for report in reports)
        if draft is not None and not drafts:
            raise UsageError(f"{artifact} has no drafter beside the model", "leave out --draft")
        beside = Wish(mmproj_file, Need.DECIDED, Need.DECIDED if drafts and draft is None else Need.NONE, weights, base)
        source = drafted(opened(against, False, shown.silent, beside), draft, dry_run=False, quiet=shown.silent)
        options = Options(threads or cores(), device)
        for number, report in enumerate(reports):
            if report.model is None and report.record is None:
                continue
            basis = _basis(report, text, imatrix)
            try:
                comparisons[number] = _compare(
                    report, source, basis, options=options, quiet=shown.silent, own_card=own_card
                )
            except (InputError, NotFoundError):
                if report.model is not None:  # else it is a problem already
                    raise
    outcomes: list[Outcome | None] = [None] * len(reports)
    if wish is not None:
        outcomes = _run(reports, wish, runtime, device=device, source=source, quiet=shown.silent)
    results = list(zip(reports, comparisons, outcomes, strict=True))
    problems = list(dict.fromkeys(problem for result in results for problem in views.problems(*result)))
    if not as_json:
        for report, *parts in results:
            for note in (note for part in parts if part is not None for note in part.notes):
                console.warn(f"{report.path}: {note}")

    def show() -> None:
        for result in results:
            views.show(*result)

    shown.emit(
        lambda: {
            "path": str(artifact),
            "against": against,
            "ok": not problems,
            "artifacts": [views.entry(*result) for result in results],
        },
        essential=lambda: views.first(problems),
        show=show,
    )
    if problems:
        more = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
        raise VerificationError(f"{artifact} failed verification: {problems[0]}{more}", "convert or download it again")


def _basis(report: Report, text: list[Path] | None, imatrix: Path | None) -> Basis | None:
    """Read what the artifact was calibrated on; None without files, unless it was gemmaq's own text.

    Raises:
        InputError: files were given that the artifact was not calibrated on.
    """
    from gemmaq.inference import documents

    calibrated = report.record.request.calibration if report.record is not None else None
    if calibrated is None or report.record is None:
        if text or imatrix:
            raise UsageError(f"{report.path} was not calibrated on anything", "leave out --text and --imatrix")
        return None
    ours = documents.recorded(calibrated.texts)
    if not text and not imatrix and (ours is None or ours.digest != calibrated.digest):
        return calibration.from_kept(_folder(report), report.record.request)
    return calibration.from_record(calibrated, text, imatrix)


def _compare(
    report: Report, source: Checkpoint, basis: Basis | None, *, options: Options, quiet: bool, own_card: bool
) -> Comparison:
    from gemmaq.verify.against import with_recipe, without_recipe
    from gemmaq.verify.structure import arrays

    with console.progress(f"comparing {report.path} with {source.location}", quiet) as progress:
        if report.record is None:
            assert report.model is not None
            return without_recipe(report.model, source, threads=options.threads, progress=progress)
        folder, record = _folder(report), report.record
        stored = arrays(folder, record) if report.stored is None else report.stored  # says what is wrong with them
        return with_recipe(
            folder, record, stored, source, options=options, progress=progress, basis=basis, own_card=own_card
        )


def _wish(
    wanted: bool, runtime: str | None, prompt: str | None, tokens: int | None, threads: int | None
) -> RunWish | None:
    """What a runtime is to decode; None if none is to.

    Raises:
        UsageError: the options contradict each other, the runtime is unknown, or torch is missing.
    """
    from gemmaq.inference.device import require_torch
    from gemmaq.verify import engines
    from gemmaq.verify.running import MOST_TOKENS, Wish

    given = [flag for flag, value in {"--prompt": prompt, "--tokens": tokens}.items() if value is not None]
    if not wanted:
        if given:
            raise UsageError(f"{given[0]} needs --run")
        return None
    if runtime is not None:
        engines.check(runtime)
    if prompt is not None and not prompt.strip():
        raise UsageError("--prompt is empty")
    if tokens is not None and tokens > MOST_TOKENS:
        raise UsageError(f"--tokens {tokens} is more than the {MOST_TOKENS} that verify compares")
    require_torch("--run")
    wish = Wish(prompt, threads=threads or cores())
    return wish if tokens is None else replace(wish, tokens=tokens)


def _run(
    reports: Sequence[Report],
    wish: RunWish,
    runtime: str | None,
    *,
    device: str | None,
    source: Checkpoint | None,
    quiet: bool,
) -> list[Outcome | None]:
    """Run the models that passed the checks so far; all runtimes are found before the first one runs."""
    from gemmaq.inference.device import open_device
    from gemmaq.verify import engines, running

    chosen: list[engines.Installed | None] = []
    for report in reports:
        chosen.append(None)
        if report.model is not None and not report.problems:
            running.check_model(report.model)
            chosen[-1] = engines.choose(report.model, runtime)
    outcomes: list[Outcome | None] = []
    with open_device(device, wish.threads) as opened_device:
        for report, found in zip(reports, chosen, strict=True):
            if found is None or report.model is None:
                console.warn(f"{report.path}: not run, as it failed the checks before")
                outcomes.append(None)
                continue
            with console.progress(f"running {report.path} in {found.engine.name}", quiet) as progress:
                outcomes.append(
                    running.run(report.model, found, wish, device=opened_device, progress=progress, source=source)
                )
    return outcomes


def _folder(report: Report) -> Path:
    """The artifact's folder, also where the report is on one of several models in it."""
    return report.path if report.path.is_dir() else report.path.parent
