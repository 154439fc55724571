"""Warnings about a plan: losses, second quantization, and choices that would keep more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from gemmaq.checkpoint import Checkpoint
from gemmaq.methods import METHODS
from gemmaq.methods.lattice import GridFit
from gemmaq.planning.plan import PlannedTensor


def advise(
    checkpoint: Checkpoint,
    planned: tuple[PlannedTensor, ...],
    *,
    fits: Mapping[str, GridFit],
    with_vision: bool,
) -> list[str]:
    """Warnings about a plan before it is carried out, a sentence each.

    Args:
        checkpoint: the source.
        planned: tensors of the text model.
        fits: canonical name -> the grid that the weights lie on.
        with_vision: whether the vision tensors are written too.
    """
    warnings = list(checkpoint.notes)
    if checkpoint.vision and not with_vision:
        gigabytes = checkpoint.vision_bytes / 1e9
        warnings.append(f"the vision tower ({gigabytes:.2f} GB) is left out, the result is text-only")
    again = [t for t in planned if not t.source.encoding.is_float and not t.encoding.is_float and not t.keeps_codes]
    if again:
        kinds = sorted({t.source.encoding.label for t in again})
        warnings.append(
            f"{_tensors(len(again))} quantized a second time (from {', '.join(kinds)}): "
            "a BF16 checkpoint gives a better result"
        )
    fallbacks = Counter(t.reason for t in planned if t.reason)
    warnings += [f"{_tensors(count)} {reason}" for reason, count in fallbacks.items()]
    if fits:
        warnings += _grid_warnings(checkpoint, planned, fits)
    return warnings


def _grid_warnings(
    checkpoint: Checkpoint, planned: tuple[PlannedTensor, ...], fits: Mapping[str, GridFit]
) -> list[str]:
    """Warnings about the grids that the weights lie on."""
    warnings = []
    trained = {name for name, verdict in fits.items() if verdict.on_grid}
    lost = [
        t
        for t in planned
        if t.source.name in trained and not t.encoding.is_float and not METHODS["lattice"].writes(t.encoding)
    ]
    body = [t for t in lost if not t.source.place.role.is_table]
    if body:
        kinds = ", ".join(sorted({t.encoding.label for t in body}))
        warnings.append(f"{_tensors(len(body))} trained for an int4 grid but written as {kinds}: q4_0 keeps the grid")
    elif lost:
        warnings.append("the embedding lies on an int4 grid too: --embedding q4_0 loses nothing and is smaller")
    forced = [t for t in planned if METHODS[t.choice.method].keeps_grid and t.source.name not in trained]
    if forced:
        warnings.append(f"{_tensors(len(forced))} on no int4 grid: method lattice gives them the closest it can find")
    others = Counter(v.rule for v in fits.values() if v.rule is not None and not v.on_grid)
    for rule, count in others.items():
        warnings.append(f"{_tensors(count)} on the grid of {rule}: made from a quantized file, not trained for q4_0")
    if "qat" in checkpoint.name.lower() and not trained:
        warnings.append("the name says QAT, but the weights lie on no int4 grid: treated as an ordinary checkpoint")
    return warnings


def _tensors(count: int) -> str:
    return "1 tensor is" if count == 1 else f"{count} tensors are"
