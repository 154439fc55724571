"""Options of calibration, the same wherever they occur, and what they ask for."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gemmaq.cli import console
from gemmaq.errors import InputError, UsageError

if TYPE_CHECKING:
    from gemmaq.calibration.complete import Basis
    from gemmaq.checkpoint import Checkpoint
    from gemmaq.planning.plan import Plan
    from gemmaq.planning.recipe import Recipe
    from gemmaq.planning.request import Calibration

_TOKENS = "GEMMAQ_CALIBRATION_TOKENS"
Texts = Annotated[
    list[Path] | None,
    typer.Option(
        "--text",
        metavar="FILE",
        help="Text to calibrate on, again for more: plain, or .jsonl with a conversation (messages) or text a line. "
        "Default: conversations that come with gemmaq.",
    ),
]
Tokens = Annotated[
    int | None,
    typer.Option(
        "--calibration-tokens",
        metavar="N",
        min=16,
        envvar=_TOKENS,
        help="Tokens of it to use at most. Default: 16384.",
    ),
]
Context = Annotated[
    int | None,
    typer.Option("--calibration-context", metavar="N", min=16, help="Tokens of a sequence. Default: 512."),
]
Device = Annotated[
    str | None,
    typer.Option("--device", metavar="NAME", help="Where to compute: cpu, cuda, cuda:1, mps. Default: the best."),
]
_FLAGS = {
    "tokens": "--calibration-tokens", "context": "--calibration-context", "damping": "--damping", "order": "--order",
}  # fmt: skip
_ORDERS = ("importance", "columns")


def read(recipe: Recipe, text: list[Path] | None, imatrix: Path | None, settings: Mapping[str, Any]) -> Basis | None:
    """What the methods of a recipe are calibrated on; None if none of them is.

    Raises:
        UsageError: options without a method that they serve, or that contradict each other.
        NotFoundError: a file is missing.
        InputError: one is not what it should be.
    """
    from gemmaq.methods import calibrated

    asked = {recipe.method, *(rule.method for rule in recipe.rules)}
    methods = [method for method in calibrated() if method in asked]
    given = {name: value for name, value in settings.items() if value is not None}
    flags = [flag for flag, value in (("--text", text), ("--imatrix", imatrix)) if value]
    flags += [_FLAGS[name] for name in given if name != "tokens" or _TOKENS not in os.environ]
    if not methods:
        if flags:
            raise UsageError(f"{flags[0]} is for methods {' and '.join(calibrated())}", "add --method gptq")
        return None
    if imatrix is not None:
        if "gptq" in methods:
            raise UsageError("--imatrix serves method importance alone", "gptq calibrates on --text FILE")
        if len(flags) > 1:
            raise UsageError(f"--imatrix and {next(f for f in flags if f != '--imatrix')} cannot go together")
        return _of_imatrix(imatrix)
    if "gptq" not in methods:
        for name in ("damping", "order"):
            if name in given:
                raise UsageError(f"{_FLAGS[name]} is for method gptq")
    return of_text(f"method {' and '.join(methods)}", text, given)


def of_text(what: str, text: Sequence[Path] | None, given: Mapping[str, Any]) -> Basis:
    """Text as a basis, gemmaq's own where none is given; see `read`.

    Args:
        what: it is for.
        text: files.
        given: settings other than the default ones.
    """
    from gemmaq.calibration.complete import Basis
    from gemmaq.inference import documents as texts
    from gemmaq.inference.device import require_torch
    from gemmaq.planning.request import Calibration

    require_torch(what)
    if not 0 < given.get("damping", 0.01) <= 1:
        raise UsageError(f"--damping {given['damping']} is no share", "0.01 is usual")
    if given.get("order", "importance") not in _ORDERS:
        raise UsageError(f"unknown order {given['order']!r}", f"known orders: {', '.join(_ORDERS)}")
    found = texts.read(text or [texts.DEFAULT])
    return Basis(Calibration(found.names, found.digest, **given), found, None)


def again(known: Calibration, text: Sequence[Path] | None, imatrix: Path | None) -> Basis:
    """What codes are on record to have been calibrated on.

    Raises:
        InputError: this is something else.
    """
    from dataclasses import asdict

    from gemmaq.calibration.complete import Basis

    settings = {name: value for name, value in asdict(known).items() if name not in ("texts", "digest")}
    found = _of_imatrix(imatrix) if imatrix else of_text("verify --against", text, settings)
    if found.calibration.digest != known.digest:
        names = ", ".join(map(str, [imatrix] if imatrix else text or ()))
        raise InputError(
            f"the artifact was calibrated on something else than {names}",
            f"it was {', '.join(known.texts) or 'an importance matrix'} with SHA-256 {known.digest}",
        )
    return Basis(known, found.text, found.imatrix)


def _of_imatrix(path: Path) -> Basis:
    from hashlib import sha256

    from gemmaq.calibration.complete import Basis
    from gemmaq.calibration.imatrix import read as read_matrix
    from gemmaq.planning.request import Calibration

    found = read_matrix(path)
    return Basis(Calibration((), sha256(path.read_bytes()).hexdigest()), None, found)


def described(checkpoint: Checkpoint, plans: Sequence[Plan], basis: Basis) -> str:
    """What calibration will do, in a sentence."""
    from gemmaq.calibration import memory
    from gemmaq.calibration.complete import needed

    how = basis.calibration
    if not how.texts:
        return "codes are chosen by an importance matrix"
    text = f"calibrated on at most {how.tokens:,} tokens of {', '.join(how.texts)}, {how.context} at a time"
    if "gptq" not in needed(plans):
        return text
    return f"{text}; takes about {console.size(memory(checkpoint.config, how.tokens))} of memory beside torch's own"
