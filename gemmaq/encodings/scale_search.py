"""The search for a scale around zero: Q6_K, and Q4_0 and Q5_0 under an importance matrix.

The reference's operations (ggml-quants.c, make_qx_quants) run for many groups side by side, a lane each: every group
goes through the same f32 operations in the same order, so the bytes agree, and the lanes vectorise.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gemmaq.encodings.lanes import LANES, LARGEST, WEIGHTS
from gemmaq.encodings.rounding import MAGIC
from gemmaq.jit import compiled

EPSILON = np.float32(1e-15)
"""Groups whose largest magnitude is below this count as zero (ggml's GROUP_MAX_EPS)."""

_UNROLLED = 8  # weights between two visits to the sums in memory
_PARTS = LARGEST // _UNROLLED
_WEIGHTED = 2 * WEIGHTS  # importance times weight
_INVERSE, _SUM_LX, _SUM_L2 = (3 * WEIGHTS + k * LANES for k in range(3))
_STEPS = 9  # candidates to either side of the first

_ZERO = np.float32(0)
_ONE = np.float32(1)


@compiled
def nearest_int(value: Any) -> Any:
    """The f32 nearest integer, ties to even: ggml's nearest_int for the small values that occur here."""
    return (value + MAGIC) - MAGIC


@compiled
def nearest_level(value: Any, reach: Any) -> Any:
    """The level of a scaled weight: f32 in -reach to reach - 1."""
    level = nearest_int(value)
    level = level if level > -reach else -reach
    return level if level < reach - _ONE else reach - _ONE


@compiled
def _add_up(room: Any, size: Any, reach: Any) -> None:
    """Sums for a regression on the levels of every group for its inverse scale."""
    for part in range(_PARTS):
        if part * _UNROLLED >= size:
            break
        for g in range(LANES):
            inverse, sum_lx, sum_l2 = room[_INVERSE + g], room[_SUM_LX + g], room[_SUM_L2 + g]
            for k in range(_UNROLLED):
                i = (part * _UNROLLED + k) * LANES + g
                level = nearest_level(inverse * room[i], reach)
                sum_lx += room[_WEIGHTED + i] * level
                sum_l2 += room[WEIGHTS + i] * level * level
            room[_SUM_LX + g], room[_SUM_L2 + g] = sum_lx, sum_l2


@compiled
def search_scales(room: Any, size: Any, reach: Any, out: Any) -> None:
    """Scale of every group by weighted least squares on the levels of 19 candidates, the best one wins.

    Args:
        room: f32 [ROOM], groups in lanes, and the importance of their weights.
        size: weights a group, a multiple of 8 up to LARGEST.
        reach: levels are -reach to reach - 1, f32; as a constant it would make the compiler give up on vectors.
        out: f32 [2, LANES], output: scales, and the inverse scales that codes are rounded with, 0 for a group of
            zeros, whose codes are -reach.
    """
    scales, inverses = out[0], out[1]
    extreme, best = np.zeros(LANES, np.float32), np.zeros(LANES, np.float32)
    for i in range(size):
        for g in range(LANES):
            x = room[i * LANES + g]
            extreme[g] = x if abs(x) > abs(extreme[g]) else extreme[g]
            room[_WEIGHTED + i * LANES + g] = room[WEIGHTS + i * LANES + g] * x
    for turn in range(2 * _STEPS + 1):
        step = turn - _STEPS - 1 if turn <= _STEPS else turn - _STEPS  # the first is taken whatever it explains
        ends = reach + np.float32(0.1) * np.float32(step) if turn > 0 else reach
        for g in range(LANES):
            candidate = -ends / extreme[g]
            room[_INVERSE + g] = candidate if abs(extreme[g]) >= EPSILON else _ZERO
            room[_SUM_LX + g], room[_SUM_L2 + g] = _ZERO, _ZERO
        _add_up(room, size, reach)
        for g in range(LANES):
            sum_lx, sum_l2 = room[_SUM_LX + g], room[_SUM_L2 + g]
            ratio = sum_lx / sum_l2
            ratio = ratio if sum_l2 != _ZERO else _ZERO
            gain = np.int32(sum_l2 > _ZERO) & np.int32(sum_lx * sum_lx > best[g] * sum_l2)
            better = gain | np.int32(turn == 0)
            scales[g] = ratio if better != 0 else scales[g]
            inverses[g] = room[_INVERSE + g] if better != 0 else inverses[g]
            best[g] = ratio * sum_lx if better != 0 else best[g]
    for g in range(LANES):
        scales[g] = scales[g] if abs(extreme[g]) >= EPSILON else _ZERO


@compiled
def choose_levels(x: Any, inverse: Any, reach: Any, codes: Any) -> None:
    """Codes u8 [n] of a group, x f32 [n], by the inverse scale from `search_scales`."""
    for i in range(x.size):
        level = nearest_level(inverse * x[i], reach)
        codes[i] = np.uint8(np.int32((level if inverse != _ZERO else -reach) + reach))
