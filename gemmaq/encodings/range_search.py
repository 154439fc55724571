"""The search for a scale and a minimum: Q4_K, Q5_K, and types with minima under an importance matrix.

The reference's operations (ggml-quants.c, make_qkx2_quants and make_qkx3_quants) run for many groups side by side, a
lane each: every group goes through the same f32 operations in the same order, so the bytes agree, and the lanes
vectorise.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gemmaq.encodings.lanes import LANES, LARGEST, WEIGHTS
from gemmaq.encodings.rounding import MAGIC
from gemmaq.jit import compiled

_UNROLLED = 4  # weights between two visits to the sums in memory
_PARTS = LARGEST // _UNROLLED
_LEVELS = 2 * WEIGHTS
_ORIGIN, _INVERSE, _SUM_L, _SUM_L2, _SUM_XL, _SCALE, _MINIMUM, _ERROR = (3 * WEIGHTS + k * LANES for k in range(8))

_ZERO = np.float32(0)
_ONE = np.float32(1)
_NO_LEVEL = np.int32(0)
_MANTISSA = np.int32(0x007FFFFF)
_MIDDLE = np.int32(0x00400000)


@compiled
def nearest_int(value: Any) -> Any:
    """The nearest integer, i32, ties to even: ggml's nearest_int, for infinity, NaN and large numbers too."""
    return (np.float32(value + MAGIC).view(np.int32) & _MANTISSA) - _MIDDLE


@compiled
def nearest_level(value: Any, top: Any) -> Any:
    """The code of a scaled weight, i32 in 0..top."""
    return max(_NO_LEVEL, min(top, nearest_int(value)))


@compiled
def _look(room: Any, size: Any, ceiling: Any, lows: Any, highs: Any, sums_w: Any, sums_x: Any) -> None:
    """Range of every group, its low end at most `ceiling`, and sums of importances and of weighted x, f32 [LANES]."""
    for g in range(LANES):
        low, high = room[g], room[g]
        sum_w, sum_x = _ZERO, _ZERO
        for i in range(size):
            x, weight = room[i * LANES + g], room[WEIGHTS + i * LANES + g]
            low = x if x < low else low
            high = x if x > high else high
            sum_w += weight
            sum_x += weight * x
        lows[g] = ceiling if low > ceiling else low
        highs[g], sums_w[g], sums_x[g] = high, sum_w, sum_x


@compiled
def _fit(room: Any, size: Any, top: Any) -> None:
    """Codes of every group for its origin and inverse scale, as f32, and the sums for a regression on them."""
    for part in range(_PARTS):
        if part * _UNROLLED >= size:
            break
        for g in range(LANES):
            origin, inverse = room[_ORIGIN + g], room[_INVERSE + g]
            sum_l, sum_l2, sum_xl = room[_SUM_L + g], room[_SUM_L2 + g], room[_SUM_XL + g]
            for k in range(_UNROLLED):
                i = (part * _UNROLLED + k) * LANES + g
                x = room[i]
                level = np.float32(nearest_level(inverse * (x - origin), top))
                room[_LEVELS + i] = level
                weighted = room[WEIGHTS + i] * level
                sum_l += weighted
                sum_l2 += weighted * level
                sum_xl += weighted * x
            room[_SUM_L + g], room[_SUM_L2 + g], room[_SUM_XL + g] = sum_l, sum_l2, sum_xl


@compiled
def _add_errors(room: Any, size: Any) -> None:
    """Add the weighted squared error of every group for its codes, scale and minimum."""
    for part in range(_PARTS):
        if part * _UNROLLED >= size:
            break
        for g in range(LANES):
            scale, minimum, error = room[_SCALE + g], room[_MINIMUM + g], room[_ERROR + g]
            for k in range(_UNROLLED):
                i = (part * _UNROLLED + k) * LANES + g
                distance = scale * room[_LEVELS + i] + minimum - room[i]
                error += room[WEIGHTS + i] * (distance * distance)
            room[_ERROR + g] = error


@compiled
def _regress(sums_w: Any, sums_x: Any, ceiling: Any, room: Any) -> None:
    """Scale and minimum (at most `ceiling`) by least squares; the sum of codes is overwritten with the determinant."""
    for g in range(LANES):
        sum_w, sum_x = sums_w[g], sums_x[g]
        sum_l, sum_l2, sum_xl = room[_SUM_L + g], room[_SUM_L2 + g], room[_SUM_XL + g]
        determinant = sum_w * sum_l2 - sum_l * sum_l
        scale = (sum_w * sum_xl - sum_x * sum_l) / determinant
        minimum = (sum_l2 * sum_x - sum_l * sum_xl) / determinant
        above = minimum > ceiling
        through_zero = sum_xl / sum_l2
        room[_SCALE + g] = through_zero if above else scale
        room[_MINIMUM + g] = _ZERO if above else minimum
        room[_SUM_L + g] = determinant


@compiled
def search_ranges(room: Any, size: Any, rule: Any, out: Any) -> None:
    """Scale and minimum of every group: weighted regression on the codes of each candidate scale, the best one wins.

    The minimum of the best so far is the origin of later candidates, as in the reference.

    Args:
        room: f32 [ROOM], groups in lanes, and the importance of their weights.
        size: weights a group, a multiple of 4 up to LARGEST.
        rule: the largest code, i32; the first candidate spreads the range over so many codes more, f32; each next one
            over so many more than that, f32; number of candidates less one; largest minimum, f32, 0 or infinite.
        out: f32 [4, LANES], output: scales, minima, and the inverse scales and origins that codes are rounded with.
    """
    top, first, delta, steps, ceiling = rule
    scales, minima, inverses, origins = out[0], out[1], out[2], out[3]
    highs, sums_w, sums_x = np.empty(LANES, np.float32), np.empty(LANES, np.float32), np.empty(LANES, np.float32)
    best = np.empty(LANES, np.float32)
    _look(room, size, ceiling, minima, highs, sums_w, sums_x)
    levels_top = np.float32(top)
    for g in range(LANES):
        inverses[g] = levels_top / (highs[g] - minima[g])
        scales[g] = _ONE / inverses[g]
        origins[g] = minima[g]
        room[_INVERSE + g], room[_ORIGIN + g] = inverses[g], minima[g]
        room[_SCALE + g], room[_MINIMUM + g] = scales[g], minima[g]
        room[_ERROR + g] = _ZERO
    _fit(room, size, top)
    _add_errors(room, size)
    for g in range(LANES):
        best[g] = room[_ERROR + g]
    for step in range(steps + 1):
        reach = first + delta * np.float32(step) + levels_top
        for g in range(LANES):
            room[_INVERSE + g], room[_ORIGIN + g] = reach / (highs[g] - minima[g]), minima[g]
            room[_SUM_L + g], room[_SUM_L2 + g], room[_SUM_XL + g], room[_ERROR + g] = _ZERO, _ZERO, _ZERO, _ZERO
        _fit(room, size, top)
        _regress(sums_w, sums_x, ceiling, room)
        _add_errors(room, size)
        for g in range(LANES):
            better = np.int32(room[_SUM_L + g] > _ZERO) & np.int32(room[_ERROR + g] < best[g])
            best[g] = room[_ERROR + g] if better != 0 else best[g]
            scales[g] = room[_SCALE + g] if better != 0 else scales[g]
            minima[g] = room[_MINIMUM + g] if better != 0 else minima[g]
            inverses[g] = room[_INVERSE + g] if better != 0 else inverses[g]
            origins[g] = room[_ORIGIN + g] if better != 0 else origins[g]
