"""Options of calibration, the same for every command that has them, and reading what they name."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gemmaq.cli import console
from gemmaq.cli.options import cores, count, number
from gemmaq.errors import InputError, UsageError, unknown

if TYPE_CHECKING:
    from gemmaq.calibration.complete import Basis
    from gemmaq.checkpoint import Checkpoint
    from gemmaq.methods import Needs
    from gemmaq.planning.plan import Plan
    from gemmaq.planning.recipe import Recipe
    from gemmaq.planning.request import Calibration, Refinement, Request

_TOKENS = "GEMMAQ_CALIBRATION_TOKENS"
Texts = Annotated[
    list[Path] | None,
    typer.Option(
        "--text",
        metavar="FILE",
        help="Text to calibrate on; can be repeated. Plain text, or .jsonl with a conversation (messages) or a text on "
        "each line. Default: text of all kinds that comes with gemmaq (see --calibration-kind).",
    ),
]
Kinds = Annotated[
    list[str] | None,
    typer.Option(
        "--calibration-kind",
        metavar="KIND",
        help="Kind of text that comes with gemmaq to calibrate on; can be repeated, or as in prose,code. With --text, "
        "both are taken, half each. Kinds: prose, code, chat, long, non-latin, tools.",
    ),
]
Tokens = Annotated[
    int | None,
    typer.Option(
        "--calibration-tokens",
        metavar="N",
        parser=count(16),
        envvar=_TOKENS,
        help="Maximum tokens of text to calibrate on. Default: 32768.",
    ),
]
Context = Annotated[
    int | None,
    typer.Option("--calibration-context", metavar="N", parser=count(16), help="Tokens per sequence. Default: 512."),
]
Damping = Annotated[
    float | None,
    typer.Option(
        "--damping",
        metavar="SHARE",
        parser=number(),
        help="For method gptq: share of its mean that is added to the Hessian's diagonal. Default: 0.01.",
    ),
]
Order = Annotated[
    str | None,
    typer.Option(
        "--order",
        metavar="ORDER",
        help="For method gptq: order of the columns. importance: groups with the largest inputs first; columns: as "
        "stored. Default: importance.",
    ),
]
Sweeps = Annotated[
    int | None,
    typer.Option(
        "--sweeps",
        metavar="N",
        parser=count(0),
        help="For method gptq: how often all codes and scales are chosen again afterwards, each given all others. "
        "Default: 2, or 0 with fewer than 32768 tokens of text.",
    ),
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Keep what is calibrated, layer by layer, in OUTPUT.work until the output is written: the same command "
        "goes on there after an interruption, and gives the same bytes.",
    ),
]
Refine = Annotated[
    str | None,
    typer.Option(
        "--refine",
        metavar="MINUTES",
        help="When the codes are chosen, tune the weights of the RMS norms to them for so many minutes, or as in "
        "200steps: the model's predictions against the source's, on the text. For each type. No byte more.",
    ),
]
_FLAGS = {
    "refine": "--refine", "kinds": "--calibration-kind",
    "tokens": "--calibration-tokens", "context": "--calibration-context", "damping": "--damping", "order": "--order",
    "sweeps": "--sweeps",
}  # fmt: skip
_HESSIAN_SETTINGS = ("damping", "order", "sweeps")
_ORDERS = ("importance", "columns")


def read(recipe: Recipe, text: list[Path] | None, imatrix: Path | None, settings: Mapping[str, Any]) -> Basis | None:
    """Read what the methods of a recipe are calibrated on; None if none of them is calibrated.

    Args:
        recipe: types and methods.
        text: files of `--text`.
        imatrix: file of `--imatrix`.
        settings: fields of `Calibration`; None for those that were not given.

    Raises:
        UsageError: an option has no method that uses it, or two options contradict each other.
        NotFoundError: a file is missing.
        InputError: a file is unusable.
    """
    from gemmaq.methods import METHODS, Needs, calibrated

    names = set(recipe.methods)
    methods = [METHODS[name] for name in calibrated() if name in names]
    given = {name: value for name, value in settings.items() if value is not None}
    refine = _refinement(given.pop("refine")) if "refine" in given else None
    if refine is not None:
        given["refine"] = refine
    named = [flag for flag, value in (("--text", text), ("--imatrix", imatrix)) if value] + flags(given)
    inverting = [method.name for method in methods if method.needs is Needs.HESSIAN]
    for name in _HESSIAN_SETTINGS:
        if name in given and not inverting:
            raise UsageError(f"{_FLAGS[name]} is for method gptq only", "leave it out, or add --method gptq")
    if not methods and refine is None:
        if imatrix is not None:
            weighing = [name for name in calibrated() if METHODS[name].needs is Needs.IMPORTANCE]
            raise UsageError(f"--imatrix is for method {' and '.join(weighing)}", f"add --method {weighing[0]}")
        if named:
            raise UsageError(f"{named[0]} is for methods {' and '.join(calibrated())}", "add --method gptq")
        return None
    if imatrix is not None:
        if inverting:
            weighing = [name for name in calibrated() if METHODS[name].needs is Needs.IMPORTANCE]
            raise UsageError(
                f"--imatrix is for method {' and '.join(weighing)} only",
                f"{inverting[0]} is calibrated on text: --text FILE",
            )
        if len(named) > 1:
            other = next(flag for flag in named if flag != "--imatrix")
            raise UsageError(f"--imatrix and {other} exclude each other", "give one of them")
        return _from_imatrix(imatrix)
    purpose = f"method {' and '.join(method.name for method in methods)}" if methods else "--refine"
    return from_text(purpose, text, given)


def _refinement(asked: str) -> Refinement:
    """The refinement that is asked for: minutes, or a number of steps.

    Raises:
        UsageError: it is neither.
    """
    from gemmaq.planning.request import Refinement

    number, steps = asked.lower().removesuffix("steps").strip(), asked.lower().endswith("steps")
    try:
        value = int(number) if steps else float(number)
    except ValueError:
        value = 0
    if not 0 < value < 1e6:
        raise UsageError(f"--refine {asked!r} is no number of minutes", "--refine 5, or --refine 200steps")
    return Refinement(None, int(value)) if steps else Refinement(value)


def flags(settings: Mapping[str, Any]) -> list[str]:
    """Flags by which fields of `Calibration` were given, those that are not None; the environment is no flag."""
    given = [name for name, value in settings.items() if value is not None]
    return [_FLAGS[name] for name in given if name != "tokens" or _TOKENS not in os.environ]


def from_text(purpose: str, text: Sequence[Path] | None, settings: Mapping[str, Any]) -> Basis:
    """Read text to calibrate on, gemmaq's own if there are no files; errors as in `read`.

    Args:
        purpose: what needs the text, for an error if torch is missing.
        text: files.
        settings: fields of `Calibration` that differ from the defaults, and `kinds` of text that ships.
    """
    from gemmaq.calibration.complete import Basis
    from gemmaq.inference import documents
    from gemmaq.inference.device import require_torch
    from gemmaq.planning.request import Calibration

    console.waiting.doing("loading torch")
    require_torch(purpose)
    if not 0 < settings.get("damping", 0.01) <= 1:
        raise UsageError(f"--damping {settings['damping']} is not between 0 and 1", "0.01 is usual")
    if settings.get("order", "importance") not in _ORDERS:
        raise unknown("order", settings["order"], _ORDERS)
    kinds = named_kinds(settings.get("kinds")) or (() if text else documents.DEFAULT)
    content = documents.read(text or (), kinds)
    fields = {name: value for name, value in settings.items() if name != "kinds"}
    return Basis(Calibration(content.names, content.digest, **fields), content, None)


def named_kinds(given: Sequence[str] | None) -> tuple[str, ...]:
    """Kinds of text as they were named, with commas or one by one.

    Raises:
        UsageError: one is unknown.
    """
    from gemmaq.inference.documents import known

    return known(kind.strip() for part in given or () for kind in part.split(","))


def from_record(record: Calibration, text: Sequence[Path] | None, imatrix: Path | None) -> Basis:
    """Read again what an artifact was calibrated on.

    Raises:
        InputError: the files are others than those on record.
    """
    from dataclasses import asdict, replace

    from gemmaq.calibration.complete import Basis
    from gemmaq.inference import documents

    settings = {name: value for name, value in asdict(record).items() if name in _FLAGS and name != "refine"}
    if imatrix:
        basis = _from_imatrix(imatrix)
    else:
        basis = from_text("verify --against", text, settings)
        again = documents.recorded(record.texts, text or ())
        if again is not None:
            basis = Basis(replace(basis.calibration, digest=again.digest), again, None)
    if basis.calibration.digest != record.digest:
        names = ", ".join(map(str, [imatrix] if imatrix else text or ()))
        raise InputError(
            f"the artifact was not calibrated on {names}",
            f"it was calibrated on {', '.join(record.texts) or 'an importance matrix'} with SHA-256 {record.digest}",
        )
    return Basis(record, basis.text, basis.imatrix)


def from_kept(folder: Path, request: Request) -> Basis | None:
    """The importance matrix that lies beside an artifact; None without one, or if some codes need the text.

    Raises:
        InputError: it is damaged.
    """
    from gemmaq.calibration.complete import Basis
    from gemmaq.calibration.imatrix import read as read_imatrix
    from gemmaq.methods import METHODS, Needs

    record = request.calibration
    if record is None or record.matrix is None or not record.matrix.size:
        return None
    if any(METHODS[name].needs is Needs.HESSIAN for name in request.recipe.methods if name in METHODS):
        return None
    path = folder / Path(record.matrix.file).name
    return Basis(record, None, read_imatrix(path)) if path.is_file() else None


def _from_imatrix(path: Path) -> Basis:
    from hashlib import sha256

    from gemmaq.calibration.complete import Basis
    from gemmaq.calibration.imatrix import read as read_imatrix
    from gemmaq.planning.request import Calibration

    imatrix = read_imatrix(path)
    return Basis(Calibration((), sha256(path.read_bytes()).hexdigest()), None, imatrix)


def replaces(output: Path | None, force: bool, resume: bool) -> bool:
    """Whether an output may be replaced: the user says so, or an interrupted run had written it already.

    Raises:
        OutputError: what the run keeps would lie in a folder that gemmaq did not make.
    """
    from gemmaq.calibration.resume import check_own, folder_of, is_written

    if resume and output is not None:
        check_own(folder_of(output))
    return force or (resume and output is not None and is_written(output))


def check_resume(asked: bool, basis: Basis | None, searching: bool) -> None:
    """Refuse to keep what is not there.

    Raises:
        UsageError: nothing is calibrated on text, or types are searched for.
    """
    if asked and (searching or basis is None or basis.text is None):
        what = "a search for types keeps its own measurements" if searching else "nothing is calibrated on text"
        raise UsageError(f"--resume goes on with a calibration, and {what}", "leave it out")


def described(checkpoint: Checkpoint, plans: Sequence[Plan], basis: Basis, *, resume: bool = False) -> str:
    """One sentence about the calibration to come."""
    from gemmaq.calibration import memory, refine_norms, traffic
    from gemmaq.inference.peers import expected
    from gemmaq.methods import Needs

    settings = basis.calibration
    if not settings.texts:
        return "codes are chosen with an importance matrix"
    text = (
        f"calibrating on up to {settings.tokens:,} tokens of {', '.join(settings.texts)}, {settings.context} at a time"
    )
    processes = expected()
    sizes = [memory(checkpoint.config, settings.tokens, processes)] if _needs(plans, Needs.HESSIAN) else []
    each = f" in each of {processes} processes" if processes > 1 else ""
    solving = f"; takes about {console.size(sizes[0])} of memory{each}, besides torch" if sizes else ""
    if sizes and processes > 1:
        sent = traffic(checkpoint.config, settings.tokens, processes, resume=resume)
        solving += f"; besides the codes, they send each other up to {console.size(sent)}"
    if settings.refine is None:
        return text + solving
    asked = checkpoint.config, settings.used or settings.tokens, settings.context, cores()
    whole, layer = (console.size(refine_norms.memory(*asked, streamed=streamed)) for streamed in (False, True))
    return f"{text}{solving}; tuning norms takes about {whole}, or {layer} a layer at a time if less is free"


def _needs(plans: Sequence[Plan], needs: Needs) -> bool:
    return any(tensor.needs is needs for plan in plans for tensor in plan.tensors)
