"""Sensitivities as tables and as JSON."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gemmaq.cli import console

if TYPE_CHECKING:
    from gemmaq.calibration.sensitivity_forecast import Forecast
    from gemmaq.checkpoint import Checkpoint
    from gemmaq.planning.sensitivities import Group, Sensitivities

_TYPE, _METHODS = "q4_0", ("nearest", "importance", "gptq")
"""The type that tables show, by these methods."""
_SHOWN = 5
"""Groups that are listed from either end."""


def document(path: Path, found: Sensitivities, *, coarse: bool) -> dict[str, Any]:
    """The JSON object."""
    return {
        "path": str(path),
        "bytes": path.stat().st_size,
        "model": found.model,
        "texts": list(found.texts),
        "tokens": found.tokens,
        "context": found.context,
        "coarse": coarse,
        "groups": [
            {"tensors": list(group.names), "type": _TYPE, "kl": {m: group.loss(_TYPE, m) for m in _METHODS}}
            for group in found.groups
        ],
    }


def show(found: Sensitivities, checkpoint: Checkpoint) -> None:
    """Print what each kind of tensor loses, then the groups that lose the most and the least."""
    label = _TYPE.upper()
    total = sum(map(_loss, found.groups)) or 1.0
    kinds: dict[str, list[Group]] = {}
    for group in found.groups:
        kinds.setdefault(checkpoint.tensors[group.names[0]].place.kind, []).append(group)
    rows = [
        (
            kind,
            str(sum(len(group.names) for group in groups)),
            _kl(sum(map(_loss, groups))),
            f"{100 * sum(map(_loss, groups)) / total:.1f} %",
            _where(max(groups, key=_loss), checkpoint),
            _where(min(groups, key=_loss), checkpoint),
        )
        for kind, groups in sorted(kinds.items(), key=lambda item: -sum(map(_loss, item[1])))
    ]
    columns = ("kind", "tensors", f"KL in {label}", "share", "most in layer", "least in layer")
    console.table(
        f"{found.model}: mean KL in nats with one kind in {label}",
        columns,
        rows,
        spare=("least in layer", "tensors", "most in layer"),
    )
    ranked = sorted(found.groups, key=lambda group: -_loss(group))
    listed = ranked if len(ranked) <= 2 * _SHOWN else [*ranked[:_SHOWN], *ranked[-_SHOWN:]]
    heads = ("most and least sensitive", "MB", *_METHODS)
    console.table(None, heads, [_row(group, checkpoint) for group in listed], fold=True)


def _loss(group: Group) -> float:
    return group.loss(_TYPE, _METHODS[0]) or 0.0


def _kl(value: float | None) -> str:
    return "" if value is None else f"{value:.2g}" if value < 1e-3 else f"{value:.4f}"


def _where(group: Group, checkpoint: Checkpoint) -> str:
    """Number of the layer, or of the first and the last one."""
    layers = sorted({checkpoint.tensors[name].place.layer for name in group.names} - {None}, key=lambda at: at or 0)
    return "" if not layers else str(layers[0]) if len(layers) == 1 else f"{layers[0]}-{layers[-1]}"


def _row(group: Group, checkpoint: Checkpoint) -> tuple[str, ...]:
    from gemmaq.encodings import ENCODINGS

    tensors = [checkpoint.tensors[name] for name in group.names]
    size = sum(tensor.rows * ENCODINGS[_TYPE].row_bytes(tensor.columns) for tensor in tensors)
    name = group.names[0] if len(tensors) == 1 else f"{tensors[0].place.kind} of layers {_where(group, checkpoint)}"
    return (name, f"{size / 1e6:.2f}", *(_kl(group.losses.get(method, {}).get(_TYPE)) for method in _METHODS))


def planned(forecast: Forecast) -> list[str]:
    """What a measurement will take, as lines of text."""
    what = "kinds of matrices in bands of layers" if forecast.coarse else "single tensors"
    seconds = forecast.seconds
    took = "the weights are not here, so no rate was measured" if seconds is None else f"about {_duration(seconds)}"
    return [
        f"groups  {forecast.groups} ({what})",
        f"text    {forecast.tokens:,} tokens scored, {forecast.calibrating:,} more to solve codes for",
        f"passes  {forecast.passes:,} of a sequence through a layer",
        f"time    {took}",
        f"memory  about {console.size(forecast.memory)}, besides torch",
        f"disk    up to {console.size(forecast.disk)} until it is done",
    ]


def _duration(seconds: float) -> str:
    """`40 seconds`, `12 minutes` or `3.5 hours`."""
    if seconds < 90:
        return f"{math.ceil(seconds)} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
