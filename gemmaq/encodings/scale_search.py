"""The search for a scale around zero: Q6_K, and Q3_K, Q4_0 and Q5_0 under an importance matrix.

The reference's operations (ggml-quants.c, make_qx_quants) run for many groups side by side, a lane each: every group
goes through the same f32 operations in the same order, so the bytes agree, and the lanes vectorise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gemmaq.encodings.lanes import LANES, LARGEST, OWN, ROOM, WEIGHTS, ends, fill, nearest_level, weigh_by_square
from gemmaq.jit import compiled

if TYPE_CHECKING:
    from gemmaq.encodings import F32, U8

EPSILON = np.float32(1e-15)
"""Groups whose largest magnitude is below this count as zero (ggml's GROUP_MAX_EPS)."""

_UNROLLED = 8  # weights between two visits to the sums in memory
_PARTS = LARGEST // _UNROLLED
_WEIGHTED = 2 * WEIGHTS  # importance times weight
_INVERSE, _SUM_LX, _SUM_L2, _EXTREME, _BEST, _SCALE, _CHOSEN, _SUM_W = (OWN + k * LANES for k in range(8))
_STEPS = 9  # candidates to either side of the first

_ZERO = np.float32(0)


@compiled
def _look(room: Any, size: Any) -> None:
    """The first weight of largest magnitude, the sum of the importances, and importance times weight."""
    for g in range(LANES):
        room[_EXTREME + g], room[_SUM_W + g], room[_BEST + g] = _ZERO, _ZERO, _ZERO
    for i in range(LARGEST):  # of constant length: see lanes.py
        if i >= size:
            break
        for g in range(LANES):
            x, weight = room[i * LANES + g], room[WEIGHTS + i * LANES + g]
            room[_EXTREME + g] = x if abs(x) > abs(room[_EXTREME + g]) else room[_EXTREME + g]
            room[_SUM_W + g] += weight
            room[_WEIGHTED + i * LANES + g] = weight * x


@compiled
def _add_up(room: Any, size: Any, low: Any, high: Any) -> None:
    """Sums for a regression on the levels of every group for its inverse scale."""
    for part in range(_PARTS):
        if part * _UNROLLED >= size:
            break
        for g in range(LANES):
            inverse, sum_lx, sum_l2 = room[_INVERSE + g], room[_SUM_LX + g], room[_SUM_L2 + g]
            for k in range(_UNROLLED):
                i = (part * _UNROLLED + k) * LANES + g
                level = inverse * room[i]  # never far outside the ends: cut off first, it takes fewer operations
                level = level if level > low else low
                level = np.float32(np.rint(level if level < high else high))
                sum_lx += room[_WEIGHTED + i] * level
                sum_l2 += room[WEIGHTS + i] * level * level
            room[_SUM_LX + g], room[_SUM_L2 + g] = sum_lx, sum_l2


@compiled
def fit_scales(x: Any, weights: Any, reach: Any, out: Any) -> None:
    """Scale of every group by weighted least squares on the levels of 19 candidates, the best one wins.

    Args:
        x: f32 [groups, n], n a multiple of 8 up to LARGEST.
        weights: how much errors count, f32 [groups, n], or [0, n]: as much as the squares.
        reach: levels are -reach to reach - 1, i32.
        out: f32 [3, groups], output: scales; inverse scales that codes are rounded with, 0 for a group of zeros, whose
            codes are 0; sums of the importances.
    """
    room, size, top = np.zeros(ROOM, np.float32), x.shape[1], np.float32(reach)
    low, high = -top, np.float32(reach - 1)
    for start in range(0, x.shape[0], LANES):
        count = fill(room, x, weights, start)
        if weights.shape[0] == 0:
            weigh_by_square(room, size)
        _look(room, size)
        for turn in range(2 * _STEPS + 1):
            step = turn - _STEPS - 1 if turn <= _STEPS else turn - _STEPS  # the first is taken whatever it explains
            end = top + np.float32(0.1) * np.float32(step) if turn > 0 else top
            for g in range(LANES):
                extreme = room[_EXTREME + g]
                room[_INVERSE + g] = -end / extreme if abs(extreme) >= EPSILON else _ZERO
                room[_SUM_LX + g], room[_SUM_L2 + g] = _ZERO, _ZERO
            _add_up(room, size, low, high)
            for g in range(LANES):
                sum_lx, sum_l2 = room[_SUM_LX + g], room[_SUM_L2 + g]
                ratio = sum_lx / sum_l2
                ratio = ratio if sum_l2 != _ZERO else _ZERO
                gain = np.int32(sum_l2 > _ZERO) & np.int32(sum_lx * sum_lx > room[_BEST + g] * sum_l2)
                better = gain | np.int32(turn == 0)
                room[_SCALE + g] = ratio if better != 0 else room[_SCALE + g]
                room[_CHOSEN + g] = room[_INVERSE + g] if better != 0 else room[_CHOSEN + g]
                room[_BEST + g] = ratio * sum_lx if better != 0 else room[_BEST + g]
        for g in range(count):
            zero = abs(room[_EXTREME + g]) < EPSILON
            out[0, start + g] = _ZERO if zero else room[_SCALE + g]
            out[1, start + g] = room[_CHOSEN + g]
            out[2, start + g] = room[_SUM_W + g]


@compiled
def choose_levels(x: Any, inverses: Any, reach: Any, codes: Any) -> None:
    """Codes u8 [groups, n] by the inverse scales f32 [groups] of `fit_scales`, which are 0 for groups of zeros."""
    low, high = ends(-reach, reach - 1)
    for g in range(x.shape[0]):
        inverse = inverses[g]
        origin = np.float32(reach) if inverse != _ZERO else _ZERO
        for i in range(x.shape[1]):
            codes[g, i] = np.uint8(np.int32(nearest_level(inverse * x[g, i], low, high) + origin))


def signed(x: F32, weights: F32 | None, reach: int) -> tuple[U8, F32]:
    """Codes u8 [groups, n] and, f32 [3, groups], what `fit_scales` finds."""
    weights = x[:0] if weights is None else weights
    codes, fitted = np.empty(x.shape, np.uint8), np.empty((3, len(x)), np.float32)
    fit_scales(x, weights, np.int32(reach), fitted)
    choose_levels(x, fitted[1], np.int32(reach), codes)
    return codes, fitted
