"""The search for a scale and a minimum: ggml's Q4_K and Q5_K, and all affine types when weights differ in importance.

The reference's operations (ggml-quants.c, make_qkx2_quants and make_qkx3_quants) run for many groups side by side, a
lane each: every group sees the same f32 operations in the same order, so the bytes agree, and the lanes vectorise.
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
    """The nearest integer, i32, ties to even; ggml's nearest_int also for what is infinite, too large or no number."""
    return (np.float32(value + MAGIC).view(np.int32) & _MANTISSA) - _MIDDLE


@compiled
def nearest_level(value: Any, top: Any) -> Any:
    """The code of a scaled weight, i32 in 0..top."""
    return max(_NO_LEVEL, min(top, nearest_int(value)))


@compiled
def _look(room: Any, size: Any, ceiling: Any, lows: Any, highs: Any, sums_w: Any, sums_x: Any) -> None:
    """The range of every group, its low end at most `ceiling`, and its sums; lows to sums_x are f32 [LANES]."""
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
    """Codes for the origin and inverse scale of every group, f32, and the sums of a regression on them."""
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
    """Weighted squared distance of every group from what its codes, scale and minimum stand for."""
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
    """Scale and minimum (at most `ceiling`) that explain the codes best; the determinant replaces the sum of codes."""
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
def search_ranges(room: Any, size: Any, rule: Any, found: Any) -> None:
    """Scale and minimum of every group: weighted regression on the codes of candidate scales, the best of all.

    The minimum of the best so far is the origin of the candidates that follow, as in the reference.

    Args:
        room: f32 [ROOM], with the groups, a lane each, and what the error of each of their weights counts.
        size: weights a group, a multiple of 4 up to LARGEST.
        rule: the largest code, i32; what the first candidate adds to so many steps over the range, f32; what the
            next add each, f32; candidates less one; the most a minimum may be, f32: 0 or infinite.
        found: f32 [4, LANES]: to receive scales, minima, and the inverse scales and origins of the codes they rest on.
    """
    top, first, delta, steps, ceiling = rule
    scales, minima, inverses, origins = found[0], found[1], found[2], found[3]
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
