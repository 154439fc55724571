"""Options of `gemmaq convert` for a budget of bytes: a size, bits per weight, or a card to fit; and how it is met."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gemmaq.cli import calibration, console, system
from gemmaq.cli.options import byte_count, count
from gemmaq.errors import UsageError

if TYPE_CHECKING:
    from gemmaq.budget.goal import Fit, Goal
    from gemmaq.calibration.complete import Basis
    from gemmaq.planning.recipe import Recipe

TargetSize = Annotated[
    str | None,
    typer.Option(
        "--target-size",
        metavar="SIZE",
        help="In place of --quant: choose the type of every tensor so that the files of the model take at most SIZE "
        "(8.5G, 900M, 8GiB) and lose as little as possible. An mmproj file and a drafter do not count.",
    ),
]
TargetBits = Annotated[
    str | None,
    typer.Option(
        "--target-bpw",
        metavar="BITS",
        help="In place of --quant: likewise, for so many bits per weight of the text model: 4.6, for example.",
    ),
]
FitCards = Annotated[
    list[str] | None,
    typer.Option(
        "--fit",
        metavar="CARD",
        help="In place of --quant: choose the type of every tensor so that the model fits a card, as estimate-vram "
        "counts: 'RTX 4070', 2x3090, 'm4 max 64gb', 24GB. Repeated: several cards together.",
    ),
]
FitContext = Annotated[
    int | None,
    typer.Option("--context", metavar="N", parser=count(1), help="For --fit: tokens of context. Default: 8192."),
]
FitCache = Annotated[
    str | None,
    typer.Option(
        "--kv-type", metavar="TYPE", help="For --fit: type of the KV cache, or of K and V: q8_0 or q8_0,q4_0."
    ),
]
FitParallel = Annotated[
    int | None,
    typer.Option(
        "--parallel", metavar="N", parser=count(1), help="For --fit: sequences that run at a time. Default: 1."
    ),
]
FitEngine = Annotated[
    str | None,
    typer.Option(
        "--engine",
        metavar="NAME",
        help="For --fit: runtime, which decides the container: llama.cpp, ollama, lmstudio, mlx, transformers, vllm. "
        "Default: that of the container.",
    ),
]
FitOffload = Annotated[
    bool,
    typer.Option(
        "--offload",
        help="For --fit with llama.cpp: put experts and layers that have no room on the card into main memory.",
    ),
]
FitMemory = Annotated[
    str | None,
    typer.Option(
        "--ram",
        metavar="SIZE",
        help="For --offload: main memory that they may take, 8G for example. Default: three quarters of what this "
        "machine has.",
    ),
]
SensitivityFile = Annotated[
    Path | None,
    typer.Option(
        "--sensitivity",
        metavar="FILE",
        help="For a budget of bytes: sensitivities that gemmaq sensitivity wrote. Default: they are measured, and kept "
        "for the next time.",
    ),
]
Checked = Annotated[
    bool | None,
    typer.Option(
        "--check/--no-check",
        help="For a budget of bytes: measure the chosen types and the best uniform type on text of several kinds, and "
        "keep the better. Default: if torch is there.",
        show_default=False,
    ),
]
_QUANT = "GEMMAQ_QUANT"
_CONTEXT = 8192
_SHARE = 0.75
"""Of main memory, which the system and other programs need too."""


@dataclass(frozen=True, slots=True)
class Flags:
    """The values of these options as they were given."""

    size: str | None = None
    bits: str | None = None
    cards: list[str] | None = None
    context: int | None = None
    kv_type: str | None = None
    parallel: int | None = None
    engine: str | None = None
    offload: bool | None = None
    ram: str | None = None
    sensitivity: Path | None = None
    check: bool | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """A budget that was asked for.

    Attributes:
        goal: what the types are to meet.
        container: container that the engine loads, None if any meets it.
        flag: the option that asks for it.
        sensitivity: file of sensitivities, None to measure them.
        check: whether candidates are measured; None: if torch is there.
    """

    goal: Goal
    container: str | None
    flag: str
    sensitivity: Path | None = None
    check: bool | None = None


def wanted(flags: Flags, *, quant: Sequence[str] | None, like: str | None, to: Sequence[str]) -> Wanted | None:
    """The budget that was asked for; None without one.

    Args:
        flags: the options of this file.
        quant: values of `--quant`.
        like: value of `--like`.
        to: values of `--to`.

    Raises:
        UsageError: options contradict each other, have no use, or have no sense.
    """
    from gemmaq.budget.goal import Bits, FileBytes

    targets = {"--target-size": flags.size, "--target-bpw": flags.bits, "--fit": flags.cards}
    given = [name for name, value in targets.items() if value]
    if not given:
        _check_unused(
            flags, ("context", "kv_type", "parallel", "engine", "offload", "ram", "sensitivity", "check"), "a budget"
        )
        return None
    if len(given) > 1:
        raise UsageError(f"{given[0]} and {given[1]} both say how many bytes there are", "give one of them")
    if quant and list(quant) != os.environ.get(_QUANT, "").split():
        raise UsageError(f"{given[0]} chooses the types, and --quant names one", "leave out one of them")
    if like is not None:
        raise UsageError(f"{given[0]} chooses the types, and --like takes those of a file", "leave out one of them")
    if len(to) > 1:
        raise UsageError(f"{given[0]} is for one container", "run it once for each container")
    if flags.cards:
        fit = _fit(flags, to)
        return Wanted(fit, fit.engine.container, given[0], flags.sensitivity, flags.check)
    _check_unused(flags, ("context", "kv_type", "parallel", "engine", "offload", "ram"), "--fit")
    goal = FileBytes(byte_count("--target-size", flags.size)) if flags.size else Bits(_bits(flags.bits or ""))
    return Wanted(goal, None, given[0], flags.sensitivity, flags.check)


def _check_unused(flags: Flags, names: Sequence[str], purpose: str) -> None:
    used = next((name for name in names if getattr(flags, name) is not None), None)
    if used is not None:
        what = "--fit CARD" if purpose == "--fit" else "--target-size, --target-bpw or --fit"
        raise UsageError(f"--{used.replace('_', '-')} is for {purpose}", f"add {what}, or leave it out")


def _bits(text: str) -> float:
    try:
        bits = float(text)
    except ValueError:
        bits = 0.0
    if not 0.5 <= bits <= 32:
        raise UsageError(f"--target-bpw {text!r} is no number of bits per weight", "write 4.6, for example")
    return bits


def _fit(flags: Flags, to: Sequence[str]) -> Fit:
    from gemmaq import vram
    from gemmaq.budget.goal import Fit
    from gemmaq.planning.containers import CONTAINERS
    from gemmaq.vram import cards

    named = to[0] if to else "gguf"
    engine = vram.find(flags.engine or CONTAINERS[named].engine)
    if to and engine.container != named:
        raise UsageError(
            f"{engine.title} loads {engine.container}, not {named}", f"--to {engine.container}, or another --engine"
        )
    kinds = vram.kv_types(flags.kv_type or engine.kv_default)
    load = vram.Load(flags.context or _CONTEXT, kinds, parallel=flags.parallel or 1)
    offload = _main_memory(flags)
    return Fit(engine, load, tuple(cards.find(name) for name in flags.cards or ()), offload)


def basis(recipe: Recipe, text: list[Path] | None, imatrix: Path | None, settings: Mapping[str, Any]) -> Basis | None:
    """What codes are calibrated on, and sensitivities measured on in any case.

    Raises:
        UsageError, NotFoundError, InputError: see `calibration.read`.
    """
    from gemmaq.methods import METHODS

    calibrated = any(METHODS[name].is_calibrated for name in recipe.methods if name in METHODS)
    if calibrated or imatrix is not None or settings.get("refine") is not None:
        return calibration.read(recipe, text, imatrix, settings)
    given = {name: value for name, value in settings.items() if value is not None}
    return calibration.from_text("a budget without --sensitivity", text, given)


def _main_memory(flags: Flags) -> int:
    """Bytes of main memory that a model may take; what is taken for granted is told.

    Raises:
        UsageError: `--ram` is no size, or is of no use.
    """
    if not flags.offload:
        if flags.ram is not None:
            raise UsageError("--ram is for --offload", "add --offload, or leave it out")
        return 0
    if flags.ram is not None:
        return byte_count("--ram", flags.ram)
    total = system.memory()[0]
    if total is None:
        raise UsageError("--offload needs the size of main memory, which this system does not tell", "--ram 32G")
    size = int(total * _SHARE)
    console.note(f"--offload takes up to {console.size(size)} of main memory, three quarters of this machine's (--ram)")
    return size
