"""Compiled loops of coordinate descent: codes one column after the other, scales and minima one block after the other.

As in `gptq_kernels`, rows lie side by side in lanes and arrays are transposed, [columns, lanes]. Every step takes the
best value of one unknown while all others stay, so that the error never grows but by the rounding of sums.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gemmaq.calibration.gptq_kernels import stored
from gemmaq.encodings.rounding import MAGIC
from gemmaq.jit import compiled

_ZERO = np.float32(0)
_ONE = np.float32(1)


@compiled
def _levels(codes: Any, i: Any, offset: Any, book: Any, level: Any) -> None:
    """Levels of column i of all lanes: what their scales are multiplied with."""
    for g in range(level.size):
        code = codes[i, g]
        level[g] = book[0][code] if book[0].size else np.float32(code) - offset


@compiled
def _choose(value: Any, offset: Any, top: Any, book: Any, level: Any, code: Any) -> None:
    """The nearest levels and their codes for values in units of the scale, f32 [lanes]."""
    levels, middles = book
    if levels.size:
        level[:] = levels[0]
        code[:] = 0
        for k in range(middles.size):
            middle, rise = middles[k], levels[k + 1] - levels[k]
            for g in range(value.size):
                level[g] += rise if value[g] >= middle else _ZERO
                code[g] += np.int32(value[g] >= middle)
        return
    for g in range(value.size):
        found = (value[g] + MAGIC) - MAGIC + offset
        found = found if found > _ZERO else _ZERO
        found = found if found < top else top
        code[g] = np.int32(found)
        level[g] = found - offset


@compiled
def _moved(H: Any, i: Any, step: Any, G: Any, moved: Any) -> None:
    """Change the values of column i by a step, f32 [lanes], and the gradients of the panel with them."""
    for g in range(step.size):
        moved[i, g] += step[g]
    for k in range(H.shape[0]):
        factor = H[k, i]
        for g in range(step.size):
            G[k, g] -= factor * step[g]


@compiled
def _new_codes(H: Any, i: Any, rule: Any, scale: Any, codes: Any, G: Any, moved: Any) -> None:
    """The best codes of column i, with scales f32 [lanes]; lanes whose scale is 0 keep theirs."""
    zero, top, _, _, book = rule
    offset, lanes = np.float32(0 if zero < 0 else zero), scale.size
    level, value, better = np.empty(lanes, np.float32), np.empty(lanes, np.float32), np.empty(lanes, np.float32)
    code = np.empty(lanes, np.int32)
    _levels(codes, i, offset, book, level)
    pivot = _ONE / H[i, i]
    for g in range(lanes):
        value[g] = level[g] + G[i, g] * pivot / scale[g] if scale[g] != _ZERO else level[g]
    _choose(value, offset, np.float32(top), book, better, code)
    for g in range(lanes):
        value[g] = scale[g] * (better[g] - level[g])
        codes[i, g] = np.uint8(code[g]) if scale[g] != _ZERO else codes[i, g]
    _moved(H, i, value, G, moved)


@compiled
def _new_factor(H: Any, start: Any, level: Any, kind: Any, factor: Any, G: Any, moved: Any) -> None:
    """The best factor of a block's levels, f32 [block, lanes]: its scale, or its minimum, which all levels 1 have.

    A factor whose best value is rounded to a worse one when it is stored stays as it is.
    """
    block, lanes = level.shape
    slope, bend = np.zeros(lanes, np.float32), np.zeros(lanes, np.float32)
    for i in range(block):
        for g in range(lanes):
            slope[g] += level[i, g] * G[start + i, g]
        for k in range(block):
            weight = H[start + i, start + k]
            for g in range(lanes):
                bend[g] += weight * level[i, g] * level[k, g]
    step = np.empty(lanes, np.float32)
    for g in range(lanes):
        best = stored(factor[g] + slope[g] / bend[g], kind) if bend[g] > _ZERO else factor[g]
        change = best - factor[g]
        change = change if change * (_ONE + _ONE) * slope[g] > change * change * bend[g] else _ZERO
        step[g] = change
        factor[g] += change
    part = np.empty(lanes, np.float32)
    for i in range(block):
        for g in range(lanes):
            part[g] = step[g] * level[i, g]
        _moved(H, start + i, part, G, moved)


@compiled
def descend(H: Any, rule: Any, group: Any, codes: Any, scales: Any, minima: Any, free: Any, G: Any, moved: Any) -> None:
    """One sweep over the columns of a panel.

    Args:
        H: f32 [columns, columns], the panel's block of the Hessian, its diagonal above 0.
        rule: see `gptq_kernels.search`.
        group: columns that share a scale; a divisor of the columns.
        codes: u8 [columns, lanes], changed.
        scales: f32 [columns / group, lanes], changed if they are free.
        minima: f32 [columns / group, lanes], changed if they are free; 0 for encodings without minima.
        free: whether scales and minima may change.
        G: f32 [columns, lanes], the Hessian times what is missing of the weights; changed.
        moved: f32 [columns, lanes], output: by how much the values have grown.
    """
    zero, _, _, kind, book = rule
    offset, lanes = np.float32(0 if zero < 0 else zero), codes.shape[1]
    level = np.empty((group, lanes), np.float32)
    moved[:] = _ZERO
    for start in range(0, codes.shape[0], group):
        at = start // group
        for i in range(start, start + group):
            _new_codes(H, i, rule, scales[at], codes, G, moved)
        if free:
            for i in range(group):
                _levels(codes, start + i, offset, book, level[i])
            _new_factor(H, start, level, kind, scales[at], G, moved)
            if zero < 0 and not book[0].size:
                level[:] = _ONE
                _new_factor(H, start, level, kind, minima[at], G, moved)
