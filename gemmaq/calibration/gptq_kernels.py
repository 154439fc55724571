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
_STEP = np.float32(0.1)

EXACT, F16, PORTABLE, BF16 = 0, 1, 2, 3
"""Number types that scales and minima are rounded to before codes are chosen for them."""


@compiled
def _stored(value: Any, kind: Any) -> Any:
    """A scale or minimum as the container will hold it."""
    if kind == EXACT:
        return value
    if kind == F16:
        return round_f16(value)
    return round_f16(round_bf16(value)) if kind == PORTABLE else round_bf16(value)


@compiled
def _signed_scales(x: Any, h: Any, half: Any, steps: Any, scales: Any) -> None:
    """Scale of every lane with the least weighted squared error, the extreme at either end of the codes.

    Candidates put the extreme at -half - 0.1 s or half - 1 + 0.1 s, s from -steps to steps; each is refined by least
    squares. Shapes: x f32 [group, lanes], h f32 [group], scales f32 [lanes].
    """
    group, lanes = x.shape
    extreme, best = np.zeros(lanes, np.float32), np.zeros(lanes, np.float32)
    inverse, xl, ll = np.empty(lanes, np.float32), np.empty(lanes, np.float32), np.empty(lanes, np.float32)
    scales[:] = _ZERO
    for i in range(group):
        for g in range(lanes):
            extreme[g] = x[i, g] if abs(x[i, g]) > abs(extreme[g]) else extreme[g]
    for side in range(2):
        for step in range(-steps, steps + 1):
            reach = np.float32(-half if side == 0 else half - 1) - _STEP * np.float32(step)
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

    Candidates spread the range of the group over top + 0.1 s codes, s from -steps to steps; each is refined by least
    squares.
    """
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
    for step in range(-steps, steps + 1 if steps else 0):
        for g in range(lanes):
            span = high[g] - low[g]
            inverse[g] = (top + _STEP * np.float32(step)) / span if span > _TINY else _ZERO
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
def quantize_panel(
    W: Any, Hinv: Any, diagonal: Any, group: Any, zero: Any, top: Any, steps: Any, stored: Any, codes: Any, scales: Any,
    minima: Any, err: Any,
) -> None:  # fmt: skip
    """Choose scales and codes of a panel's columns, one after the other, each correcting those that follow.

    Args:
        W: f32 [columns, lanes], weights of some rows, transposed; overwritten with the corrected weights.
        Hinv: f32 [columns, columns], the panel's block of the upper Cholesky factor of H^-1.
        diagonal: f32 [columns], diagonal of H, weighs the columns in the search for scales.
        group: columns that share a scale; a divisor of the columns.
        zero: the code of 0, or -1 for an encoding with minima.
        top: the largest code.
        steps: candidate scales to either side of the first, 0 for no search.
        stored: number type of scales and minima.
        codes: u8 [columns, lanes], output.
        scales: f32 [columns / group, lanes], output.
        minima: f32 [columns / group, lanes], output, 0 for encodings without minima.
        err: f32 [columns, lanes], output; later panels subtract the product of their block of Hinv with it.
    """
    columns, lanes = W.shape
    affine = zero < 0
    offset = np.float32(0 if affine else zero)
    for start in range(0, columns, group):
        at = start // group
        part, weights = W[start : start + group], diagonal[start : start + group]
        minima[at, :] = _ZERO
        if affine:
            _affine_scales(part, weights, np.float32(top), steps, scales[at], minima[at])
        elif steps:
            _signed_scales(part, weights, zero, steps, scales[at])
        else:
            _absmax_scales(part, zero, scales[at])
        for g in range(lanes):
            scales[at, g] = _stored(scales[at, g], stored)
            minima[at, g] = _stored(minima[at, g], stored)
        for i in range(start, start + group):
            _quantize_column(W, Hinv, i, offset, np.float32(top), scales[at], minima[at], codes, err)
            for k in range(i + 1, columns):
                factor = Hinv[i, k]
                for g in range(lanes):
                    W[k, g] -= factor * err[i, g]
