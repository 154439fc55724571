"""Compiled loops of compressed-tensors' symmetric integers: groups of any multiple of 32 weights, one after the other.

Sums run in 32 lanes, so that loops vectorise whatever the length of a group; their order depends on nothing else.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gemmaq.encodings.kernels import extremes
from gemmaq.encodings.rounding import MAGIC, round_bf16
from gemmaq.jit import compiled

LANES = 32
_ZERO = np.float32(0)
_ONE = np.float32(1)
_HALF = np.float32(0.5)
_EPSILON = np.float32(2.0**-23)  # the library's scale of a group of zeros
_TINY = np.float32(1e-30)


@compiled
def round_to_extremes(x: Any, zero: Any, codes: Any, scales: Any) -> None:
    """Scales that put the largest magnitude half a step beyond the last code above zero, in BF16; nearest codes.

    Shapes: x f32 [groups, n], codes u8 alike, scales f32 [groups]. Source: compressed-tensors, calculate_qparams.
    """
    lows = np.empty(x.shape[0], np.float32)
    highs = np.empty(x.shape[0], np.float32)
    extremes(x, lows, highs)
    for g in range(x.shape[0]):
        scale = round_bf16(max(abs(lows[g]), abs(highs[g])) / (zero - _HALF))
        scales[g] = scale if scale != _ZERO else _EPSILON
    top = zero - _ONE
    for g in range(x.shape[0]):
        scale = scales[g]
        for i in range(x.shape[1]):
            level = np.float32(np.rint(x[g, i] / scale))
            codes[g, i] = np.uint8(np.int32(min(top, max(-zero, level)) + zero))


@compiled
def _total(lanes: Any) -> Any:
    total = _ZERO
    for k in range(LANES):
        total += lanes[k]
    return total


@compiled
def _regress(x: Any, weights: Any, inverse: Any, zero: Any, sums: Any) -> Any:
    """Sums of weighted weight * level and of weighted level^2, levels nearest for an inverse scale.

    Shapes: x and weights f32 [n / 32, 32], sums f32 [2, 32], working memory.
    """
    products, squares = sums[0], sums[1]
    for k in range(LANES):
        products[k], squares[k] = _ZERO, _ZERO
    low, high = -zero, zero - _ONE
    for p in range(x.shape[0]):
        for k in range(LANES):
            level = (x[p, k] * inverse + MAGIC) - MAGIC
            level = level if level > low else low
            level = level if level < high else high
            weighted = weights[p, k] * level
            products[k] += weighted * x[p, k]
            squares[k] += weighted * level
    return _total(products), _total(squares)


@compiled
def _error(x: Any, weights: Any, scale: Any, zero: Any, sums: Any) -> Any:
    """Weighted squared error of a group on the nearest levels for a scale; shapes as of `_regress`."""
    errors = sums[0]
    for k in range(LANES):
        errors[k] = _ZERO
    low, high, inverse = -zero, zero - _ONE, _ONE / scale
    for p in range(x.shape[0]):
        for k in range(LANES):
            level = (x[p, k] * inverse + MAGIC) - MAGIC
            level = level if level > low else low
            level = level if level < high else high
            off = x[p, k] - scale * level
            errors[k] += weights[p, k] * off * off
    return _total(errors)


@compiled
def search(x: Any, importance: Any, squares: Any, rule: Any, codes: Any, scales: Any) -> None:
    """Replace scales and codes of groups by those of less weighted error, where a search finds any.

    Candidates put the weight of largest magnitude at either end of the levels and ever farther beyond it, so that more
    and more weights are clipped; each is refined by least squares and rounded to BF16.

    Args:
        x: f32 [groups, n / 32, 32].
        importance: of the columns, f32 [groups of a row, n / 32, 32].
        squares: mean square of every row, f32 [rows].
        rule: the code of 0, f32; how much farther each next candidate goes, f32; number of candidates.
        codes: u8 like x, those of a rule to be no worse than; overwritten.
        scales: f32 [groups], likewise.
    """
    zero, growth, candidates = rule
    across, parts = importance.shape[0], x.shape[1]
    weights, sums = np.empty((parts, LANES), np.float32), np.empty((2, LANES), np.float32)
    for g in range(x.shape[0]):
        at, mean, extreme = g % across, squares[g // across], _ZERO
        for p in range(parts):
            for k in range(LANES):
                value = x[g, p, k]
                weights[p, k] = importance[at, p, k] * np.sqrt(mean + value * value)
                extreme = value if abs(value) > abs(extreme) else extreme
        if abs(extreme) <= _TINY:
            continue
        best, found = _ZERO, _ZERO
        for side in range(2):
            reach = -zero if side == 0 else zero - _ONE
            for _ in range(candidates):
                products, levels = _regress(x[g], weights, reach / extreme, zero, sums)
                gain = products * products / levels if levels > _ZERO else _ZERO
                if gain > best:
                    best, found = gain, products / levels
                reach *= growth
        scale = round_bf16(found)
        if scale == _ZERO or not _error(x[g], weights, scale, zero, sums) < _error(
            x[g], weights, scales[g], zero, sums
        ):
            continue
        scales[g] = scale
        inverse = _ONE / scale
        for p in range(parts):
            for k in range(LANES):
                level = np.float32(np.rint(x[g, p, k] * inverse))
                codes[g, p, k] = np.uint8(np.int32(min(zero - _ONE, max(-zero, level)) + zero))
