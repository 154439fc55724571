"""The search for codes and scales of ggml's IQ2 and IQ3 types.

For every group of weights some scales are tried. For each of them every cell of the group goes to the nearest point of
the grid, and the scale that explains the weights best by least squares wins. The reference's f32 operations
(ggml-quants.c, quantize_row_iq2_xs_impl and others) are kept in their order. The tries of a group run side by side, a
lane each; tries for which a cell rounds to the same point share the search for the nearest one.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gemmaq.encodings import Encoding, Quantized
from gemmaq.encodings.grid_points import nearest_point, nearest_points, round_cell
from gemmaq.encodings.grids import grid
from gemmaq.encodings.lanes import ends, nearest_level
from gemmaq.encodings.legacy import half_bytes, halves
from gemmaq.encodings.scale_descent import by_descent
from gemmaq.encodings.vectors import WIDTH, load, store
from gemmaq.encodings.weighing import mean_squares, weigh
from gemmaq.jit import compiled

if TYPE_CHECKING:
    from gemmaq.encodings import F32

SUPER = 256
EIGHT = 8
"""Weights whose signs are a byte."""
CELLS = 8
"""Cells of a group, at most."""

_LANES = 32  # tries, at most
_ROW = _LANES + WIDTH  # vectors are written beyond the last try, and what they write there is never looked at
_INVERSE, _SCALE, _NUMBER, _CHOSEN, _SUM_QX, _SUM_Q2 = (k * _ROW for k in range(6))
_ROOM = 6 * _ROW

_ZERO = np.float32(0)
_ONE = np.float32(1)
_HALF = np.float32(0.5)
_INF = np.float32(np.inf)


class Refit(IntEnum):
    """Which cells go to the nearest point again, for the scale that won."""

    OFF_GRID = 0
    ALL_IF_ANY_IS_OFF_GRID = 1
    ALL = 2


class Rule(NamedTuple):
    """What the types do differently.

    Attributes:
        size: weights of a group, which has a scale of its own.
        steps: tries to either side of the scale that takes the largest weight to the largest level.
        step: from one to the next, f32: a part of the inverse scale.
        smallest: groups whose largest magnitude is below this are zeros, f32.
        even: whether of eight weights an even number is negative, as the sign of the eighth is not stored.
        refit: a `Refit`.
        fitted: whether the tries lie around a scale fitted without a grid.
        clears: whether a super-block without a scale has code 0 throughout.
        spread: how often the mean square of the super-block is counted where errors are weighed by importance.
        stretch: what the super-scale is multiplied by before it is stored, f32.
        unit: the least scale, in units of the super-scale.
    """

    size: int
    steps: int
    step: np.float32
    smallest: np.float32
    even: bool
    refit: Refit
    fitted: bool = False
    clears: bool = False
    spread: int = 2
    stretch: np.float32 = _ONE
    unit: float = 1.0


@compiled
def _split_signs(x: Any, weights: Any, even: Any, magnitudes: Any, negative: Any) -> None:
    """Magnitudes and signs of weights, 1 for a negative one; of eight with an odd number, the least turns its own.

    Shapes: x, weights and magnitudes f32 [n, 8], negative u8 [n, 8].
    """
    for b in range(x.shape[0]):
        count = 0
        for i in range(EIGHT):
            is_negative = not x[b, i] >= _ZERO
            magnitudes[b, i] = -x[b, i] if is_negative else x[b, i]
            negative[b, i] = is_negative
            count += is_negative
        if even and count % 2:
            least, where = weights[b, 0] * x[b, 0] * x[b, 0], 0
            for i in range(1, EIGHT):
                size = weights[b, i] * x[b, i] * x[b, i]
                if size < least:
                    least, where = size, i
            magnitudes[b, where] = -magnitudes[b, where]
            negative[b, where] = 1 - negative[b, where]


@compiled
def _round_cell(x: Any, grid: Any, room: Any) -> None:
    """Number of the point that a cell rounds to for the inverse scale of every lane."""
    low, high = ends(0, grid.levels - 1)
    for t in range(_LANES):
        room[_NUMBER + t] = _ZERO
    place = _ONE
    for i in range(x.size):
        value = x[i]
        for t in range(_LANES):
            room[_NUMBER + t] += place * nearest_level(_HALF * (room[_INVERSE + t] * value - _ONE), low, high)
        place *= np.float32(grid.levels)


@compiled
def _choose_points(x: Any, root: Any, grid: Any, tries: Any, room: Any) -> None:
    """The nearest point of a cell for every try."""
    start = 0
    while start < tries:
        number, stop = room[_NUMBER + start], start + 1
        while stop < tries and room[_NUMBER + stop] == number:
            stop += 1
        for lane in range(start, stop, WIDTH):
            chosen = nearest_points(x, root, grid, np.int32(number), load(room, _SCALE + lane))
            store(room, _CHOSEN + lane, chosen)
        start = stop


@compiled
def _add_up(x: Any, weights: Any, grid: Any, room: Any) -> None:
    """Add a cell to the sums of a regression of the weights on the levels of the points chosen, in every lane."""
    mask = np.int32((1 << grid.bits) - 1)
    for i in range(x.size):
        shift = np.int32(grid.bits * i)
        weight, weighted = weights[i], weights[i] * x[i]
        for t in range(_LANES):
            q = np.float32(2 * ((np.int32(room[_CHOSEN + t]) >> shift) & mask) + 1)
            room[_SUM_QX + t] += weighted * q
            room[_SUM_Q2 + t] += weight * q * q


@compiled
def _best_try(tries: Any, first: Any, room: Any) -> Any:
    """Scale that explains a group best, and its try; `first` and -1 if none explains anything."""
    best, scale, which = _ZERO, first, -1
    for t in range(tries):
        sum_qx, sum_q2 = room[_SUM_QX + t], room[_SUM_Q2 + t]
        if sum_q2 > _ZERO and sum_qx * sum_qx > best * sum_q2:
            scale = sum_qx / sum_q2
            best, which = scale * sum_qx, t
    return scale, which


@compiled
def _refit(group: Any, scale: Any, again: Any, grid: Any, packed: Any) -> Any:
    """Send some cells to the points nearest for a scale; returns the scale that explains the group best then.

    Shapes: group f32 [3, n], see `_search_group`; again bool [cells], packed i32 [cells].
    """
    width, mask, inverse = grid.points.shape[1], np.int32((1 << grid.bits) - 1), _ONE / scale
    sum_qx, sum_q2 = _ZERO, _ZERO
    for k in range(packed.size):
        x, weights, root = group[0, k * width :], group[1, k * width :], group[2, k * width :]
        if again[k]:
            number = round_cell(x[:width], inverse, grid)
            packed[k] = nearest_point(x[:width], root[:width], grid, number, scale)
        for i in range(width):
            q = np.float32(2 * ((packed[k] >> np.int32(grid.bits * i)) & mask) + 1)
            sum_qx += weights[i] * x[i] * q
            sum_q2 += weights[i] * q * q
    return sum_qx / sum_q2 if sum_q2 > _ZERO else scale


@compiled
def _search_group(group: Any, start: Any, grid: Any, rule: Any, work: Any) -> Any:
    """Scale of a group; the packed levels of its cells are left in the second part of `work`.

    Args:
        group: magnitudes, importances, and square roots of these, f32 [3, n].
        start: what the largest level is tried for, and the scale to take if no try explains anything.
        grid: a `Grid`.
        rule: a `Rule`.
        work: f32 [_ROOM]; i32 [cells]; f32 [2, cells, _LANES]; bool [cells].
    """
    room, packed, kept, again = work
    width, tries = grid.points.shape[1], 2 * rule.steps + 1
    for t in range(_ROW):
        inverse = (np.float32(2 * grid.levels - 1) + np.float32(t - rule.steps) * rule.step) / start[0]
        room[_INVERSE + t], room[_SCALE + t] = inverse, _ONE / inverse
        room[_SUM_QX + t], room[_SUM_Q2 + t] = _ZERO, _ZERO
    for k in range(packed.size):
        x, weights, root = group[0, k * width :], group[1, k * width :], group[2, k * width :]
        _round_cell(x[:width], grid, room)
        _choose_points(x[:width], root[:width], grid, tries, room)
        _add_up(x[:width], weights, grid, room)
        for t in range(_LANES):
            kept[0, k, t], kept[1, k, t] = room[_NUMBER + t], room[_CHOSEN + t]
    scale, which = _best_try(tries, start[1], room)
    some = rule.refit == Refit.ALL or (which < 0 and rule.refit == Refit.ALL_IF_ANY_IS_OFF_GRID)
    for k in range(packed.size):
        off = which >= 0 and grid.indices[np.int32(kept[0, k, which])] < 0
        some |= off
        again[k] = off or rule.refit != Refit.OFF_GRID
        packed[k] = np.int32(kept[1, k, which]) if which >= 0 else 0
    if some and scale > _ZERO:
        scale = _refit(group, scale, again, grid, packed)
    return scale


@compiled
def _search(x: Any, weights: Any, starts: Any, grid: Any, rule: Any, levels: Any, scales: Any) -> None:
    """Levels and scale of every group.

    Shapes: x and weights f32 [groups, n]; starts f32 [groups, 2], see `_search_group`, the first 0 for a group of
    zeros; levels u8 like x, scales f32 [groups].
    """
    width, mask = grid.points.shape[1], np.int32((1 << grid.bits) - 1)
    packed = np.zeros(x.shape[1] // width, np.int32)
    kept, again = np.empty((2, packed.size, _LANES), np.float32), np.empty(packed.size, np.bool_)
    work = np.zeros(_ROOM, np.float32), packed, kept, again
    group = np.empty((3, x.shape[1]), np.float32)
    for g in range(x.shape[0]):
        scales[g] = _ZERO
        levels[g] = 0
        if starts[g, 0] == _ZERO:
            continue
        for i in range(x.shape[1]):
            group[0, i], group[1, i], group[2, i] = x[g, i], weights[g, i], np.sqrt(weights[g, i])
        scales[g] = _search_group(group, starts[g], grid, rule, work)
        for i in range(x.shape[1]):
            levels[g, i] = (packed[i // width] >> np.int32(grid.bits * (i % width))) & mask


@compiled
def _round_scales(fitted: Any, numbers: Any, supers: Any) -> None:
    """Scales as odd multiples, 1 to 31, of one super-scale a block.

    Shapes: fitted and numbers f32 [blocks, groups], supers f32 [blocks], infinite for weights that are too large.
    """
    low, high = ends(0, 15)
    for b in range(fitted.shape[0]):
        largest = _ZERO
        for g in range(fitted.shape[1]):
            size = abs(fitted[b, g])
            largest = max(largest, size) if size < _INF else _INF
        supers[b] = largest / np.float32(31)
        inverse = _ONE / supers[b]
        for g in range(fitted.shape[1]):
            level = nearest_level(_HALF * (inverse * abs(fitted[b, g]) - _ONE), low, high)
            numbers[b, g] = np.float32(2) * level + _ONE if largest > _ZERO else _ONE


def weighted(encoding: Encoding, rule: Rule, x: F32, columns: F32) -> Quantized:
    """`quantize` with errors weighed by the importance of their columns, f32 [columns]."""
    blocks = x.reshape(-1, SUPER)
    return quantize(encoding, rule, x, weigh(blocks, mean_squares(blocks, rule.spread), columns))


def quantize(encoding: Encoding, rule: Rule, x: F32, weights: F32) -> Quantized:
    """Codes and scales of rows in a GRID type.

    Args:
        encoding: the type.
        rule: what it does differently from the others.
        x: f32 [rows, columns].
        weights: how much the errors of the weights count, f32, shaped like x or [blocks, 256].
    """
    points, groups = grid(encoding.name), (-1, rule.size)
    magnitudes, negative = np.empty_like(x), np.empty(x.shape, np.uint8)
    eights = [array.reshape(-1, EIGHT) for array in (x, weights, magnitudes, negative)]
    _split_signs(*eights[:2], rule.even, *eights[2:])
    starts = _starts(magnitudes.reshape(groups), weights.reshape(groups), points.levels, rule)
    levels, fitted = np.empty(x.shape, np.uint8), np.empty(len(starts), np.float32)
    _search(magnitudes.reshape(groups), weights.reshape(groups), starts, points, rule, levels.reshape(groups), fitted)
    fitted[~np.isfinite(weights.reshape(groups).max(axis=1))] = np.inf  # as weights that FP16 scales cannot reach
    by_block = fitted.reshape(-1, SUPER // rule.size)
    scales, supers = np.empty_like(by_block), np.empty(len(by_block), np.float32)
    _round_scales(by_block, scales, supers)
    signs = negative.reshape(groups) ^ (fitted < 0)[:, None]
    unused = starts[:, :1] == 0
    codes = 2 * levels.reshape(groups) + np.where(unused, 0, signs)
    if rule.clears:
        codes.reshape(-1, SUPER)[supers == 0] = 0
    stored = halves(half_bytes(supers * rule.stretch))
    scales *= np.float32(rule.unit)
    shape = (len(x), -1)
    return Quantized(codes.reshape(x.shape), scales.reshape(shape), supers=stored.reshape(shape))


def _starts(x: F32, weights: F32, levels: int, rule: Rule) -> F32:
    """What the largest level is tried for first, and the scale that goes with it, f32 [groups, 2]; 0 for zeros.

    Shapes: x, magnitudes, and weights f32 [groups, n].
    """
    largest = x.max(axis=1)
    scales = largest / np.float32(2 * levels - 1)
    if rule.fitted:
        _, scales = by_descent(x, weights, levels + 1)
        reached = scales * np.float32(levels)
    else:
        reached = largest
    zero = (largest < rule.smallest) | (reached <= 0)
    return np.where(zero[:, None], np.float32(0), np.stack([reached, scales], axis=1))
