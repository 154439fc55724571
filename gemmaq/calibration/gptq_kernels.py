"""Compiled loops of GPTQ: scales of a group, codes of its columns, and their errors for the columns that follow.

Rows are independent of each other: some of them are quantized side by side, a lane each, so that every loop vectorises
without changing the order of any sum. Arrays of weights are transposed, [columns, lanes].
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gemmaq.encodings.rounding import MAGIC, round_bf16, round_f16
from gemmaq.jit import compiled

_ZERO = np.float32(0)
_ONE = np.float32(1)
_TINY = np.float32(1e-30)

EXACT, F16, PORTABLE, BF16 = 0, 1, 2, 3
"""Number types that scales and minima are rounded to before codes are chosen for them."""


@compiled
def stored(value: Any, kind: Any) -> Any:
    """A scale or minimum as the container will hold it."""
    if kind == EXACT:
        return value
    if kind == F16:
        return round_f16(value)
    return round_f16(round_bf16(value)) if kind == PORTABLE else round_bf16(value)


@compiled
def _signed_scales(x: Any, h: Any, half: Any, steps: Any, scales: Any) -> None:
    """Scale of every lane with the least weighted squared error, the extreme at either end of the codes.

    Candidates put the extreme `width` times `first` to `last` levels beyond -half or half - 1; each is refined by least
    squares. Shapes: x f32 [group, lanes], h f32 [group], scales f32 [lanes]; steps is (first, last, width).
    """
    first, last, width = steps
    group, lanes = x.shape
    extreme, best = np.zeros(lanes, np.float32), np.zeros(lanes, np.float32)
    inverse, xl, ll = np.empty(lanes, np.float32), np.empty(lanes, np.float32), np.empty(lanes, np.float32)
    scales[:] = _ZERO
    for i in range(group):
        for g in range(lanes):
            extreme[g] = x[i, g] if abs(x[i, g]) > abs(extreme[g]) else extreme[g]
    for side in range(2):
        for step in range(first, last + 1):
            beyond = width * np.float32(step)
            reach = np.float32(-half) - beyond if side == 0 else np.float32(half - 1) + beyond
            for g in range(lanes):
                inverse[g] = reach / extreme[g] if abs(extreme[g]) > _TINY else _ZERO
            xl[:] = _ZERO
            ll[:] = _ZERO
            low, high = np.float32(-half), np.float32(half - 1)
            for i in range(group):
                weight = h[i]
                for g in range(lanes):
                    level = (x[i, g] * inverse[g] + MAGIC) - MAGIC
                    level = level if level > low else low
                    level = level if level < high else high
                    xl[g] += weight * x[i, g] * level
                    ll[g] += weight * level * level
            for g in range(lanes):
                gain = xl[g] * xl[g] / ll[g] if ll[g] > _ZERO else _ZERO
                better = gain > best[g]
                scales[g] = xl[g] / ll[g] if better else scales[g]
                best[g] = gain if better else best[g]


@compiled
def _absmax_scales(x: Any, half: Any, scales: Any) -> None:
    """Scales that put the extreme at half - 1: with eight bits nothing is to be gained by a search."""
    scales[:] = _ZERO
    for i in range(x.shape[0]):
        for g in range(x.shape[1]):
            scales[g] = max(scales[g], abs(x[i, g]))
    for g in range(x.shape[1]):
        scales[g] /= np.float32(half - 1)


@compiled
def _affine_scales(x: Any, h: Any, top: Any, steps: Any, scales: Any, minima: Any) -> None:
    """Scale and minimum of every lane with the least weighted squared error; shapes as in `_signed_scales`.

    Candidates spread the range of the group over `width` times `first` to `last` codes more than there are; each is
    refined by least squares.
    """
    first, last, width = steps
    group, lanes = x.shape
    low, high = np.empty(lanes, np.float32), np.empty(lanes, np.float32)
    low[:] = np.float32(np.inf)
    high[:] = np.float32(-np.inf)
    for i in range(group):
        for g in range(lanes):
            low[g] = min(low[g], x[i, g])
            high[g] = max(high[g], x[i, g])
    least, inverse = np.empty(lanes, np.float32), np.empty(lanes, np.float32)
    least[:] = np.float32(np.inf)
    sum_x, sum_l = np.empty(lanes, np.float32), np.empty(lanes, np.float32)
    sum_ll, sum_xl, sum_xx = np.empty(lanes, np.float32), np.empty(lanes, np.float32), np.empty(lanes, np.float32)
    total = _ZERO
    for i in range(group):
        total += h[i]
    for g in range(lanes):
        scales[g] = (high[g] - low[g]) / top
        minima[g] = low[g]
    for step in range(first, last + 1):
        for g in range(lanes):
            span = high[g] - low[g]
            inverse[g] = (top + width * np.float32(step)) / span if span > _TINY else _ZERO
        sum_x[:] = _ZERO
        sum_l[:] = _ZERO
        sum_ll[:] = _ZERO
        sum_xl[:] = _ZERO
        sum_xx[:] = _ZERO
        for i in range(group):
            weight = h[i]
            for g in range(lanes):
                rise = x[i, g] - low[g]
                level = (rise * inverse[g] + MAGIC) - MAGIC
                level = level if level < top else top
                sum_x[g] += weight * rise
                sum_l[g] += weight * level
                sum_ll[g] += weight * level * level
                sum_xl[g] += weight * rise * level
                sum_xx[g] += weight * rise * rise
        for g in range(lanes):
            spread = total * sum_ll[g] - sum_l[g] * sum_l[g]
            good = spread > _ZERO
            scale = (total * sum_xl[g] - sum_x[g] * sum_l[g]) / spread if good else _ZERO
            base = (sum_x[g] - scale * sum_l[g]) / total if good else _ZERO
            error = sum_xx[g] - scale * sum_xl[g] - base * sum_x[g]
            better = good and error < least[g]
            least[g] = error if better else least[g]
            scales[g] = scale if better else scales[g]
            minima[g] = low[g] + base if better else minima[g]


@compiled
def _book_scales(x: Any, h: Any, book: Any, steps: Any, scales: Any) -> None:
    """Scale of every lane for a codebook, as `_signed_scales`; candidates are wider by a share of the extreme level.

    The first and the last of the levels are negative and positive; `width` is a share of them. `book` is (levels,
    middles).
    """
    first, last, width = steps
    levels, middles = book
    group, lanes = x.shape
    extreme, best = np.zeros(lanes, np.float32), np.zeros(lanes, np.float32)
    inverse, xl, ll = np.empty(lanes, np.float32), np.empty(lanes, np.float32), np.empty(lanes, np.float32)
    level = np.empty(lanes, np.float32)
    scales[:] = _ZERO
    for i in range(group):
        for g in range(lanes):
            extreme[g] = x[i, g] if abs(x[i, g]) > abs(extreme[g]) else extreme[g]
    for side in range(2):
        for step in range(first, last + 1):
            reach = (levels[0] if side == 0 else levels[levels.size - 1]) * (_ONE + width * np.float32(step))
            for g in range(lanes):
                inverse[g] = reach / extreme[g] if abs(extreme[g]) > _TINY else _ZERO
            xl[:] = _ZERO
            ll[:] = _ZERO
            for i in range(group):
                weight = h[i]
                level[:] = levels[0]
                for k in range(middles.size):
                    middle, rise = middles[k], levels[k + 1] - levels[k]
                    for g in range(lanes):
                        level[g] += rise if x[i, g] * inverse[g] >= middle else _ZERO
                for g in range(lanes):
                    xl[g] += weight * x[i, g] * level[g]
                    ll[g] += weight * level[g] * level[g]
            for g in range(lanes):
                gain = xl[g] * xl[g] / ll[g] if ll[g] > _ZERO else _ZERO
                better = gain > best[g]
                scales[g] = xl[g] / ll[g] if better else scales[g]
                best[g] = gain if better else best[g]


@compiled
def search(x: Any, h: Any, rule: Any, scales: Any, minima: Any) -> None:
    """Scale and minimum of every lane of a group, as they will be stored.

    Args:
        x: f32 [group, lanes].
        h: f32 [group], diagonal of H.
        rule: code of 0, or -1 for an encoding with minima; largest code; candidates, (first, last, width of a step),
            none for the extreme at the last code; number type of scales and minima; codebook, (levels, middles), empty
            for none.
        scales: f32 [lanes], output.
        minima: f32 [lanes], output, 0 for encodings without minima.
    """
    zero, top, steps, kind, book = rule
    minima[:] = _ZERO
    if book[0].size:
        _book_scales(x, h, book, steps, scales)
    elif zero < 0:
        _affine_scales(x, h, np.float32(top), steps, scales, minima)
    elif steps[0] <= steps[1]:
        _signed_scales(x, h, zero, steps, scales)
    else:
        _absmax_scales(x, zero, scales)
    for g in range(scales.size):
        scales[g], minima[g] = stored(scales[g], kind), stored(minima[g], kind)


@compiled
def _quantize_column(
    W: Any, Hinv: Any, i: Any, zero: Any, top: Any, scales: Any, minima: Any, codes: Any, err: Any
) -> None:
    """Codes of column i of all lanes, and their errors divided by Hinv[i, i]."""
    pivot = _ONE / Hinv[i, i]
    for g in range(W.shape[1]):
        inverse = _ONE / scales[g] if scales[g] != _ZERO else _ZERO
        level = ((W[i, g] - minima[g]) * inverse + MAGIC) - MAGIC + zero
        level = level if level > _ZERO else _ZERO
        level = level if level < top else top
        codes[i, g] = np.uint8(np.int32(level))
        err[i, g] = (W[i, g] - (scales[g] * (level - zero) + minima[g])) * pivot


@compiled
def _look_up_column(W: Any, Hinv: Any, i: Any, book: Any, scales: Any, codes: Any, err: Any) -> None:
    """The nearest levels of column i of all lanes, and their errors divided by Hinv[i, i]."""
    levels, middles = book
    lanes, pivot = W.shape[1], _ONE / Hinv[i, i]
    value, level, code = np.empty(lanes, np.float32), np.empty(lanes, np.float32), np.zeros(lanes, np.int32)
    for g in range(lanes):
        value[g] = W[i, g] / scales[g] if scales[g] != _ZERO else _ZERO
    level[:] = levels[0]
    for k in range(middles.size):
        middle, rise = middles[k], levels[k + 1] - levels[k]
        for g in range(lanes):
            level[g] += rise if value[g] >= middle else _ZERO
            code[g] += np.int32(value[g] >= middle)
    for g in range(lanes):
        codes[i, g] = np.uint8(code[g])
        err[i, g] = (W[i, g] - scales[g] * level[g]) * pivot


@compiled
def quantize_panel(
    W: Any, Hinv: Any, diagonal: Any, group: Any, rule: Any, codes: Any, scales: Any, minima: Any, err: Any
) -> None:
    """Choose scales and codes of a panel's columns, one after the other, each correcting those that follow.

    Args:
        W: f32 [columns, lanes], weights of some rows, transposed; overwritten with the corrected weights.
        Hinv: f32 [columns, columns], the panel's block of the upper Cholesky factor of H^-1.
        diagonal: f32 [columns], diagonal of H, weighs the columns in the search for scales; empty if scales are given.
        group: columns that share a scale; a divisor of the columns.
        rule: see `search`.
        codes: u8 [columns, lanes], output.
        scales: f32 [columns / group, lanes], output, or given.
        minima: f32 [columns / group, lanes], output, or given; 0 for encodings without minima.
        err: f32 [columns, lanes], output; later panels subtract the product of their block of Hinv with it.
    """
    columns, lanes = W.shape
    zero, top, _, _, book = rule
    offset = np.float32(0 if zero < 0 else zero)
    for start in range(0, columns, group):
        at = start // group
        if diagonal.size:
            search(W[start : start + group], diagonal[start : start + group], rule, scales[at], minima[at])
        for i in range(start, start + group):
            if book[0].size:
                _look_up_column(W, Hinv, i, book, scales[at], codes, err)
            else:
                _quantize_column(W, Hinv, i, offset, np.float32(top), scales[at], minima[at], codes, err)
            for k in range(i + 1, columns):
                factor = Hinv[i, k]
                for g in range(lanes):
                    W[k, g] -= factor * err[i, g]
