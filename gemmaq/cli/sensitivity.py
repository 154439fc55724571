"""`gemmaq sensitivity`."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from gemmaq.cli import calibration, console
from gemmaq.cli.console import Output
from gemmaq.cli.options import Device, Json, Threads, WeightFile, check_file, cores, count, opened, quiet_option
from gemmaq.errors import UsageError
from gemmaq.models.samples import SAMPLE


def sensitivity(
    *,
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help=f"Folder, .gguf file, repository (org/name), or {SAMPLE.source}; best unquantized."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="File to write, such as gemma.sensitivity.json."),
    ] = None,
    text: Annotated[
        list[Path] | None,
        typer.Option(
            "--text",
            metavar="FILE",
            help="Text to measure on; can be repeated. Plain text, or .jsonl of conversations. Default: text that "
            "comes with gemmaq.",
        ),
    ] = None,
    calibration_kind: calibration.Kinds = None,
    tokens: Annotated[
        int | None,
        typer.Option("--tokens", metavar="N", parser=count(16), help="Tokens that models are run on. Default: 1024."),
    ] = None,
    context: Annotated[
        int | None, typer.Option("--context", metavar="N", parser=count(16), help="Tokens per sequence. Default: 512.")
    ] = None,
    calibration_tokens: calibration.Tokens = None,
    coarse: Annotated[
        bool | None,
        typer.Option(
            "--coarse/--full",
            help="Measure kinds of matrices in bands of layers, or single tensors. Default: single ones, unless that "
            "would take about an hour or more on two cores.",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where an interrupted run stopped; its work is in FILE.partial.")
    ] = False,
    weights: WeightFile = None,
    device: Device = None,
    threads: Threads = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace an existing file, and begin again where a run was interrupted.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be measured and how long it takes.")
    ] = False,
    as_json: Json = False,
    quiet: Annotated[bool, quiet_option("the file's path")] = False,
) -> None:
    """Measure what each tensor's type costs a model.

    One tensor after the other is quantized, and the KL divergence of the model's predictions is measured. The file
    says what every type would cost, for `gemmaq convert --sensitivity FILE`.
    """
    from gemmaq.calibration.resources import Resources
    from gemmaq.calibration.sensitivity import measure, parts
    from gemmaq.calibration.sensitivity_forecast import forecast
    from gemmaq.calibration.sensitivity_groups import Settings
    from gemmaq.cli.views import sensitivity as views
    from gemmaq.files.atomic import write_file
    from gemmaq.planning.sensitivities import document

    shown = Output("sensitivity", as_json, quiet)
    if output is None:
        raise UsageError("there is no file to write", "name one: -o gemma.sensitivity.json")
    if resume and force:
        raise UsageError("--resume goes on and --force begins again", "give one of them")
    given = {"tokens": calibration_tokens, "context": context, "kinds": calibration_kind}
    basis = calibration.from_text("sensitivity", text, {name: n for name, n in given.items() if n is not None})
    check_file(output, force)
    settings = Settings(coarse=coarse) if tokens is None else Settings(tokens, coarse)
    checkpoint = opened(source, dry_run, shown.silent, weights=weights)
    resources = Resources(device, threads or cores())
    if dry_run:
        planned = forecast(checkpoint, parts(checkpoint, basis, settings), settings, resources=resources)

        def show_plan() -> None:
            for line in views.planned(planned):
                console.out(line)
            console.say("nothing was measured (dry run)")

        report = {"path": str(output), "texts": list(basis.calibration.texts), **asdict(planned)}
        shown.emit(lambda: report, essential=lambda: [str(output)], show=show_plan)
        return
    work = output.with_name(f"{output.name}.partial")
    if force and (work / "job.json").is_file():
        shutil.rmtree(work)
    try:
        with console.progress(None, shown.silent) as progress:
            found = measure(
                checkpoint, basis, resources=resources, progress=progress, settings=settings, folder=work, resume=resume
            )
    except BaseException:
        if work.is_dir():
            shown.say(f"{work} holds what is done: --resume goes on with it")
        raise
    write_file(output, document(found), force)

    def show() -> None:
        console.out(str(output))
        views.show(found, checkpoint)

    shown.emit(
        lambda: views.document(output, found, coarse=settings.is_coarse(checkpoint)),
        essential=lambda: [str(output)],
        show=show,
        made=True,
    )
