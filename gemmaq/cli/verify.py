"""`gemmaq verify`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gemmaq.cli import calibration, console
from gemmaq.cli.console import Output
from gemmaq.cli.options import Device, Json, Threads, cores, opened, quiet_option
from gemmaq.errors import UsageError, VerificationError

if TYPE_CHECKING:
    from gemmaq.calibration.complete import Basis
    from gemmaq.checkpoint import Checkpoint
    from gemmaq.convert.compare import Compared
    from gemmaq.verify.against import Comparison
    from gemmaq.verify.examine import Report

_WORST = 5
_SHOWN = 20


def verify(
    *,
    artifact: Annotated[
        Path,
        typer.Argument(
            metavar="ARTIFACT", help="The folder that gemmaq convert made, that of several, or a .gguf file."
        ),
    ],
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            metavar="SOURCE",
            help="Derive every tensor again from this source, compare all bytes, and say how far the weights are.",
        ),
    ] = None,
    text: Annotated[
        list[Path] | None,
        typer.Option(
            "--text",
            metavar="FILE",
            help="With --against: the text that codes were calibrated on, in the same order, to derive them again.",
        ),
    ] = None,
    imatrix: Annotated[
        Path | None, typer.Option("--imatrix", metavar="FILE", help="With --against: the importance matrix likewise.")
    ] = None,
    device: Device = None,
    threads: Threads = None,
    as_json: Json = False,
    quiet: Annotated[bool, quiet_option("what is wrong, one problem a line")] = False,
) -> None:
    """Check an artifact, or compare it with its source.

    Digests, headers, tokenizer and vision side are checked, without SHA256SUMS and gemmaq.json as far as possible.
    With --against the weights are compared with a source, too.
    """
    from gemmaq.verify.examine import examine

    if against is None and (text or imatrix):
        raise UsageError(f"{'--text' if text else '--imatrix'} serves --against SOURCE alone")
    if text and imatrix:
        raise UsageError("--text and --imatrix exclude each other", "give the one that gemmaq.json names")
    shown = Output("verify", as_json, quiet)
    with console.progress(f"reading {artifact}", shown.silent) as progress:
        reports = examine(artifact, progress)
    compared: dict[int, Comparison] = {}
    if against is not None:
        source = opened(against, dry_run=False, quiet=shown.silent)
        for number, report in enumerate(reports):
            if report.model is not None:
                basis = _basis(report, text, imatrix)
                compared[number] = _compare(report, source, basis, device, threads or cores(), shown.silent)
    checked = [(report, compared.get(number)) for number, report in enumerate(reports)]
    problems = [problem for report, comparison in checked for problem in _problems(report, comparison)]

    if not as_json:
        for report, comparison in checked:
            for note in comparison.notes if comparison is not None else ():
                console.warn(f"{report.place}: {note}")

    def show() -> None:
        for report, comparison in checked:
            _show(report, comparison)

    shown.emit(
        lambda: {
            "path": str(artifact),
            "against": against,
            "ok": not problems,
            "artifacts": [_entry(report, comparison) for report, comparison in checked],
        },
        essential=lambda: _first(problems),
        show=show,
    )
    if problems:
        more = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
        raise VerificationError(f"{artifact} is not good: {problems[0]}{more}", "convert or fetch it again")


def _basis(report: Report, text: list[Path] | None, imatrix: Path | None) -> Basis | None:
    """What codes were calibrated on, if it was given or came with gemmaq.

    Raises:
        InputError: something else was given.
    """
    from gemmaq.inference import documents as texts

    known = report.known.request.calibration if report.known is not None else None
    if known is None:
        if text or imatrix:
            raise UsageError(f"{report.place} was not calibrated on anything", "leave out --text and --imatrix")
        return None
    if not text and not imatrix and texts.read([texts.DEFAULT]).digest != known.digest:
        return None
    return calibration.from_record(known, text, imatrix)


def _compare(
    report: Report,
    source: Checkpoint,
    basis: Basis | None,
    device: str | None,
    threads: int,
    quiet: bool,
) -> Comparison:
    from gemmaq.convert.run import Options
    from gemmaq.verify.against import with_recipe, without_recipe

    with console.progress(f"comparing {report.place} with {source.location}", quiet) as progress:
        if report.known is None:
            assert report.model is not None
            return without_recipe(report.model, source, threads=threads, progress=progress)
        options = Options(threads, device)
        return with_recipe(report.place, report.known, source, options=options, progress=progress, basis=basis)


def _problems(report: Report, compared: Comparison | None) -> list[str]:
    found = compared.problems if compared is not None else ()
    return [*report.problems, *(f"{report.name}: {problem}" if report.name else problem for problem in found)]


def _entry(report: Report, compared: Comparison | None) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "path": str(report.place),
        "format": report.model.format if report.model else None,
        "gemmaq": report.known.version if report.known else None,
        "sums": report.listed is not None,
        "recipe": report.known is not None,
        "files": [{"path": name, "sha256": digest} for name, digest in report.files.items()],
        "problems": _problems(report, compared),
        "notes": list(compared.notes) if compared is not None else [],
    }
    if compared is None:
        return entry
    from gemmaq.convert.compare import by_kind

    return entry | {
        "kinds": [
            {
                "kind": kind,
                "tensors": len(some),
                "error": _number(_together(some)),
                "worst": _number(max(tensor.error for tensor in some)),
                "equal": None if some[0].equal is None else sum(bool(tensor.equal) for tensor in some),
            }
            for kind, some in by_kind(compared.tensors).items()
        ],
        "tensors": [
            {
                "name": tensor.name,
                "kind": tensor.kind,
                "type": tensor.encoding,
                "error": _number(tensor.error),
                "equal": tensor.equal,
                "differing": tensor.differing,
            }
            for tensor in compared.tensors
        ],
    }


def _number(error: float) -> float | None:
    """As JSON can have it."""
    return error if math.isfinite(error) else None


def _together(some: Sequence[Compared]) -> float:
    from gemmaq.convert.compare import relative

    return relative(math.fsum(t.square_error for t in some), math.fsum(t.square for t in some))


def _first(problems: Sequence[str]) -> Iterator[str]:
    """The first problems, and how many more there are."""
    yield from problems[:_SHOWN]
    if len(problems) > _SHOWN:
        yield f"and {len(problems) - _SHOWN} more (--json lists all)"


def _show(report: Report, compared: Comparison | None) -> None:
    problems = _problems(report, compared)
    for line in _first(problems):
        console.out(line)
    if compared is not None and compared.tensors:
        _table(report, compared)
    if not problems:
        console.out(f"{report.place}: {_what_was_checked(report, compared)}")


def _what_was_checked(report: Report, compared: Comparison | None) -> str:
    said = "headers and tokenizer are good"
    if report.listed is not None:
        said = f"{report.listed} files are what SHA256SUMS says, {said}"
    if report.known is None:
        said += "; it has no gemmaq.json that says how it was made" if report.listed is not None else _NOTHING_KNOWN
    elif compared is not None:
        count, derived = len(compared.tensors), sum(tensor.equal is not None for tensor in compared.tensors)
        what = f"all {count}" if derived == count else f"{derived} of {count}"
        said += f", {what} tensors are what gemmaq makes of the source"
    return said


_NOTHING_KNOWN = "; nothing else is known of it: it has neither SHA256SUMS nor gemmaq.json"


def _table(report: Report, compared: Comparison) -> None:
    from gemmaq.convert.compare import by_kind

    rows = []
    for kind, some in by_kind(compared.tensors).items():
        types = ", ".join(dict.fromkeys(tensor.encoding.upper() for tensor in some))
        most = max(tensor.error for tensor in some)
        equal = "" if some[0].equal is None else f"{sum(bool(tensor.equal) for tensor in some)} of {len(some)}"
        rows.append((kind, types, str(len(some)), _percent(_together(some)), _percent(most), equal))
    title = f"{report.place}: relative RMS error against the source"
    console.table(title, ("kind", "types", "tensors", "error", "worst", "bytes as made now"), rows, left=2)
    worst = sorted(compared.tensors, key=lambda tensor: (-tensor.error, tensor.name))[:_WORST]
    lines = [(tensor.name, tensor.encoding.upper(), _percent(tensor.error)) for tensor in worst]
    console.table(None, ("worst tensors", "type", "error"), lines, left=2)


def _percent(error: float) -> str:
    return f"{100 * error:.3f} %"
