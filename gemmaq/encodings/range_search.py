"""The search for a scale and a minimum: Q2_K, Q4_K, Q5_K, and types with minima under an importance matrix.

The reference's operations (ggml-quants.c, make_qkx2_quants and make_qkx3_quants) run for many groups side by side, a
lane each: every group goes through the same f32 operations in the same order, so the bytes agree, and the lanes
vectorise.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from gemmaq.encodings.lanes import LANES, LARGEST, OWN, ROOM, WEIGHTS, ends, fill, nearest_level, weigh_by_size
from gemmaq.jit import compiled

_UNROLLED = 4  # weights between two visits to the sums in memory
_PARTS = LARGEST // _UNROLLED
_LEVELS = 2 * WEIGHTS
_ORIGIN, _INVERSE, _SUM_L, _SUM_L2, _SUM_XL, _SCALE, _MINIMUM, _ERROR = (OWN + k * LANES for k in range(8))
_HIGH, _SUM_W, _SUM_X, _BEST, _BEST_SCALE, _BEST_MINIMUM, _BEST_INVERSE, _BEST_ORIGIN = (
    OWN + k * LANES for k in range(8, 16)
)

_ZERO = np.float32(0)
_ONE = np.float32(1)


class Rule(NamedTuple):
    """Candidates of a search.

    Attributes:
        top: the largest code.
        first: the first candidate spreads the range over so many codes more than `top`, f32.
        delta: each next one over so many more than that, f32.
        steps: number of candidates less one.
        ceiling: largest minimum, f32, 0 or infinite.
        absolute: whether errors count by their magnitude, otherwise by their square.
    """

    top: int
    first: np.float32
    delta: np.float32
    steps: int
    ceiling: np.float32 = _ZERO
    absolute: bool = False


@compiled
def _look(room: Any, size: Any, ceiling: Any) -> None:
    """Range of every group, its low end at most `ceiling`, and sums of importances and of weighted x."""
    for g in range(LANES):
        room[_BEST_MINIMUM + g], room[_HIGH + g] = room[g], room[g]
        room[_SUM_W + g], room[_SUM_X + g] = _ZERO, _ZERO
    for i in range(LARGEST):  # of constant length: see lanes.py
        if i >= size:
            break
        for g in range(LANES):
            x, weight = room[i * LANES + g], room[WEIGHTS + i * LANES + g]
            low, high = room[_BEST_MINIMUM + g], room[_HIGH + g]
            room[_BEST_MINIMUM + g] = x if x < low else low
            room[_HIGH + g] = x if x > high else high
            room[_SUM_W + g] += weight
            room[_SUM_X + g] += weight * x
    for g in range(LANES):
        low = room[_BEST_MINIMUM + g]
        room[_BEST_MINIMUM + g] = ceiling if low > ceiling else low


@compiled
def _fit(room: Any, size: Any, low: Any, high: Any) -> None:
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
                level = nearest_level(inverse * (x - origin), low, high)
                room[_LEVELS + i] = level
                weighted = room[WEIGHTS + i] * level
                sum_l += weighted
                sum_l2 += weighted * level
                sum_xl += weighted * x
            room[_SUM_L + g], room[_SUM_L2 + g], room[_SUM_XL + g] = sum_l, sum_l2, sum_xl


@compiled
def _add_errors(room: Any, size: Any, absolute: Any) -> None:
    """Add the weighted error of every group for its codes, scale and minimum."""
    for part in range(_PARTS):
        if part * _UNROLLED >= size:
            break
        for g in range(LANES):
            scale, minimum, error = room[_SCALE + g], room[_MINIMUM + g], room[_ERROR + g]
            for k in range(_UNROLLED):
                i = (part * _UNROLLED + k) * LANES + g
                distance = scale * room[_LEVELS + i] + minimum - room[i]
                error += room[WEIGHTS + i] * (abs(distance) if absolute else distance * distance)
            room[_ERROR + g] = error


@compiled
def _regress(room: Any, ceiling: Any) -> None:
    """Scale and minimum (at most `ceiling`) by least squares; the sum of codes is overwritten with the determinant."""
    for g in range(LANES):
        sum_w, sum_x = room[_SUM_W + g], room[_SUM_X + g]
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
def _begin(room: Any, reach: Any) -> None:
    """Set the candidate that spreads the range over `reach` codes."""
    for g in range(LANES):
        minimum = room[_BEST_MINIMUM + g]
        room[_INVERSE + g], room[_ORIGIN + g] = reach / (room[_HIGH + g] - minimum), minimum
        room[_SCALE + g], room[_MINIMUM + g] = _ONE / room[_INVERSE + g], minimum
        room[_SUM_L + g], room[_SUM_L2 + g], room[_SUM_XL + g], room[_ERROR + g] = _ZERO, _ZERO, _ZERO, _ZERO


@compiled
def _settle(room: Any, always: Any) -> None:
    """Keep the candidate where its error is the least so far, or `always`."""
    for g in range(LANES):
        fits = np.int32(room[_SUM_L + g] > _ZERO) & np.int32(room[_ERROR + g] < room[_BEST + g])
        better = fits | np.int32(always)
        room[_BEST + g] = room[_ERROR + g] if better != 0 else room[_BEST + g]
        room[_BEST_SCALE + g] = room[_SCALE + g] if better != 0 else room[_BEST_SCALE + g]
        room[_BEST_MINIMUM + g] = room[_MINIMUM + g] if better != 0 else room[_BEST_MINIMUM + g]
        room[_BEST_INVERSE + g] = room[_INVERSE + g] if better != 0 else room[_BEST_INVERSE + g]
        room[_BEST_ORIGIN + g] = room[_ORIGIN + g] if better != 0 else room[_BEST_ORIGIN + g]


@compiled
def fit_ranges(x: Any, weights: Any, rule: Any, out: Any) -> None:
    """Scale and minimum of every group: weighted regression on the codes of each candidate scale, the best one wins.

    The minimum of the best so far is the origin of later candidates, as in the reference.

    Args:
        x: f32 [groups, n], n a multiple of 4 up to LARGEST.
        weights: how much errors count, f32 [groups, n], or [0, n]: as much as the sizes and, unless
            `rule.absolute`, the rms of the group.
        rule: a `Rule`.
        out: f32 [5, groups], output: scales; minima; the inverse scales and origins that codes are rounded with; sums
            of the importances.
    """
    room, size, top = np.zeros(ROOM, np.float32), x.shape[1], np.float32(rule.top)
    low, high = ends(0, rule.top)
    for start in range(0, x.shape[0], LANES):
        count = fill(room, x, weights, start)
        if weights.shape[0] == 0:
            weigh_by_size(room, size, not rule.absolute)
        _look(room, size, rule.ceiling)
        for turn in range(rule.steps + 2):
            reach = rule.first + rule.delta * np.float32(turn - 1) + top if turn > 0 else top
            _begin(room, reach)
            _fit(room, size, low, high)
            if turn > 0:
                _regress(room, rule.ceiling)
            _add_errors(room, size, rule.absolute)
            _settle(room, turn == 0)
        for g in range(count):
            out[0, start + g], out[1, start + g] = room[_BEST_SCALE + g], room[_BEST_MINIMUM + g]
            out[2, start + g], out[3, start + g] = room[_BEST_INVERSE + g], room[_BEST_ORIGIN + g]
            out[4, start + g] = room[_SUM_W + g]


@compiled
def choose_codes(x: Any, fitted: Any, top: Any, codes: Any) -> None:
    """Codes u8 [groups, n], x f32 alike, by the inverse scales and origins of `fit_ranges`, f32 [5, groups]."""
    low, high = ends(0, top)
    for g in range(x.shape[0]):
        inverse, origin = fitted[2, g], fitted[3, g]
        for i in range(x.shape[1]):
            codes[g, i] = np.uint8(np.int32(nearest_level(inverse * (x[g, i] - origin), low, high)))
