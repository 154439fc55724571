"""The searches for a scale that end by changing one code at a time: Q3_K, and the scales of scales under an importance.

The reference's operations (ggml-quants.c, make_q3_quants and make_qp_quants) run for many groups side by side, a lane
each: every group goes through the same f32 operations in the same order, so the bytes agree, and the lanes vectorise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gemmaq.encodings.lanes import LANES, LARGEST, OWN, ROOM, WEIGHTS, ends, fill, nearest_level, weigh_by_square
from gemmaq.encodings.scale_search import EPSILON
from gemmaq.jit import compiled

if TYPE_CHECKING:
    from gemmaq.encodings import F32, U8

_LEVELS = 2 * WEIGHTS
_SUM_LX, _SUM_L2, _EXTREME, _CHANGED, _INVERSE, _BEST, _ERROR, _TRIED, _SCALE = (OWN + k * LANES for k in range(9))
_PASSES = 5
_STEPS = 4  # candidates to either side of the first
_LOWEST = -(1 << 22)  # levels without a lower end: what nearest_level can return

_ZERO = np.float32(0)
_ONE = np.float32(1)


@compiled
def _stored(level: Any, mask: Any) -> Any:
    """A level as the reference stores it: -1 for a mask of all bits, 255 where it has it in a byte."""
    return np.float32(np.int32(np.int32(level) & mask))


@compiled
def _look(room: Any, size: Any, signed: Any) -> None:
    """The first weight of largest magnitude, or the largest weight."""
    for g in range(LANES):
        room[_EXTREME + g] = _ZERO
    for i in range(LARGEST):
        if i >= size:
            break
        for g in range(LANES):
            x, extreme = room[i * LANES + g], room[_EXTREME + g]
            larger = abs(x) > abs(extreme) if signed else x > extreme
            room[_EXTREME + g] = x if larger else extreme


@compiled
def _search(room: Any, size: Any, top: Any, low: Any, high: Any, mask: Any) -> None:
    """Inverse scale of every lane, by the least weighted squared error of 9 candidates."""
    for turn in range(2 * _STEPS + 1):
        step = turn - _STEPS - 1 if turn <= _STEPS else turn - _STEPS
        end = np.float32(0.1) * np.float32(step) + top if turn > 0 else top
        ceiling = high if turn > 0 else np.int32(0x4B7FFFFF)  # the first is not held back, but stored in a byte
        for g in range(LANES):
            room[_TRIED + g], room[_ERROR + g] = end / room[_EXTREME + g], _ZERO
            room[_SCALE + g] = _ONE / room[_TRIED + g]
        for i in range(LARGEST):
            if i >= size:
                break
            for g in range(LANES):
                level = nearest_level(room[_TRIED + g] * room[i * LANES + g], low, ceiling)
                level = _stored(level, mask) if turn == 0 else level
                distance = room[i * LANES + g] - room[_SCALE + g] * level
                room[_ERROR + g] += room[WEIGHTS + i * LANES + g] * distance * distance
        for g in range(LANES):
            better = np.int32(room[_ERROR + g] < room[_BEST + g]) | np.int32(turn == 0)
            room[_BEST + g] = room[_ERROR + g] if better != 0 else room[_BEST + g]
            room[_INVERSE + g] = room[_TRIED + g] if better != 0 else room[_INVERSE + g]


@compiled
def _start(room: Any, size: Any, low: Any, high: Any, mask: Any) -> None:
    """Levels of every lane for its inverse scale, and the sums of a regression on them."""
    for g in range(LANES):
        room[_SUM_LX + g], room[_SUM_L2 + g], room[_CHANGED + g] = _ZERO, _ZERO, _ZERO
    for i in range(LARGEST):
        if i >= size:
            break
        for g in range(LANES):
            x, weight = room[i * LANES + g], room[WEIGHTS + i * LANES + g]
            level = nearest_level(room[_INVERSE + g] * x, low, high)
            room[_SUM_LX + g] += weight * x * level
            room[_SUM_L2 + g] += weight * level * level
            room[_LEVELS + i * LANES + g] = _stored(level, mask)


@compiled
def _improve(room: Any, size: Any, least: Any, low: Any, high: Any, mask: Any) -> Any:
    """Give each weight in turn the level that suits the others best; returns whether any level changed."""
    changes = np.int32(0)
    for i in range(LARGEST):
        if i >= size:
            break
        for g in range(LANES):
            x, weight, level = room[i * LANES + g], room[WEIGHTS + i * LANES + g], room[_LEVELS + i * LANES + g]
            sum_lx, sum_l2 = room[_SUM_LX + g], room[_SUM_L2 + g]
            rest_lx, rest_l2 = sum_lx - weight * x * level, sum_l2 - weight * level * level
            tried = nearest_level(x * rest_l2 / rest_lx, low, high)
            new_lx, new_l2 = rest_lx + weight * x * tried, rest_l2 + weight * tried * tried
            possible = np.int32(rest_lx > _ZERO) & np.int32(rest_l2 > least) & np.int32(tried != level)
            gain = np.int32(new_l2 > _ZERO) & np.int32(new_lx * new_lx * sum_l2 > sum_lx * sum_lx * new_l2)
            better = possible & gain
            room[_LEVELS + i * LANES + g] = _stored(tried, mask) if better != 0 else level
            room[_SUM_LX + g] = new_lx if better != 0 else sum_lx
            room[_SUM_L2 + g] = new_l2 if better != 0 else sum_l2
            room[_CHANGED + g] = _ONE if better != 0 else room[_CHANGED + g]
            changes = np.int32(changes | np.int32(better))
    return changes != 0


@compiled
def fit_by_descent(x: Any, weights: Any, rule: Any, scales: Any, codes: Any, changed: Any) -> None:
    """Scale and codes of every group.

    Args:
        x: f32 [groups, n], n up to LARGEST.
        weights: how much errors count, f32 [groups, n], or [0, n]: as much as the squares.
        rule: whether levels are -top to top - 1 and codes are from 0 to 2 * top - 1, as in make_q3_quants, or both are
            0 to top, as in make_qp_quants, and x is positive; top; how many passes over the weights there are at most.
        scales: f32 [groups], output.
        codes: u8 [groups, n], output, 0 for a group of zeros; or [0, n] if they are not asked for.
        changed: bool [groups], output: whether any pass changed a code.
    """
    signed, top, passes = rule
    room, size = np.zeros(ROOM, np.float32), x.shape[1]
    low, high = ends(-top, top - 1) if signed else ends(_LOWEST, top)
    least, mask = np.float32(-np.inf if signed else 0), np.int32(-1 if signed else 255)
    origin = np.float32(top if signed else 0)
    for start in range(0, x.shape[0], LANES):
        count = fill(room, x, weights, start)
        if weights.shape[0] == 0:
            weigh_by_square(room, size)
        _look(room, size, signed)
        if signed:
            for g in range(LANES):
                room[_INVERSE + g] = -np.float32(top) / room[_EXTREME + g]
        else:
            _search(room, size, np.float32(top), low, high, mask)
        _start(room, size, low, high, mask)
        for _ in range(passes):
            if not _improve(room, size, least, low, high, mask):
                break
        for g in range(count):
            sum_l2, zero = room[_SUM_L2 + g], abs(room[_EXTREME + g]) < EPSILON
            scales[start + g] = room[_SUM_LX + g] / sum_l2 if sum_l2 > _ZERO and not zero else _ZERO
            changed[start + g] = room[_CHANGED + g] != _ZERO
            for i in range(codes.shape[1] if codes.shape[0] > 0 else 0):
                code = np.uint8(np.int32(room[_LEVELS + i * LANES + g] + origin))
                codes[start + g, i] = np.uint8(0) if zero else code


def by_descent(x: F32, weights: F32, top: int) -> tuple[U8, F32]:
    """Codes u8 [groups, n] and scales f32 [groups] of groups of positive weights, with levels 0 to `top`."""
    codes, scales = np.empty(x.shape, np.uint8), np.empty(len(x), np.float32)
    fit_by_descent(x, weights, (False, top, _PASSES), scales, codes, np.empty(len(x), np.bool_))
    return codes, scales


def signed_codes(x: F32, top: int) -> U8:
    """Codes u8 [groups, n] with levels -top to top - 1, errors weighed by the squares of the weights."""
    codes = np.empty(x.shape, np.uint8)
    fit_by_descent(x, x[:0], (True, top, _PASSES), np.empty(len(x), np.float32), codes, np.empty(len(x), np.bool_))
    return codes


def signed_scales(x: F32, top: int) -> F32:
    """Scales f32 [groups] to `signed_codes`. Few groups change in the first pass, and only those go on."""
    scales, changed, none = (
        np.empty(len(x), np.float32),
        np.empty(len(x), np.bool_),
        np.empty((0, x.shape[1]), np.uint8),
    )
    fit_by_descent(x, x[:0], (True, top, 1), scales, none, changed)
    later = np.flatnonzero(changed)
    rest, again = x.take(later, axis=0), np.empty(len(later), np.float32)
    fit_by_descent(rest, rest[:0], (True, top, _PASSES), again, none, changed)
    scales[later] = again
    return scales
