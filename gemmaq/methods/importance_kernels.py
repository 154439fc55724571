"""Compiled loops of method importance: the searches of `encodings`, errors weighed by column.

An error is weighed as in ggml (ggml-quants.c, quantize_row_q4_0_impl and others): mean squared input of its column
times sqrt(mean square of the row + square of the weight).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gemmaq.encodings.lanes import LANES, ROOM, WEIGHTS
from gemmaq.encodings.range_search import nearest_level as nearest_code
from gemmaq.encodings.range_search import search_ranges
from gemmaq.encodings.rounding import round_bf16
from gemmaq.encodings.scale_search import choose_levels, search_scales
from gemmaq.jit import compiled

_ZERO = np.float32(0)


@compiled
def mean_squares(x: Any, out: Any) -> None:
    """Mean square of every row, x f32 [rows, columns], added up from left to right as ggml does: out f32 [rows]."""
    rows = x.shape[0] // 4 * 4
    for r in range(0, rows, 4):  # side by side: each sum waits for itself
        first, second, third, fourth = _ZERO, _ZERO, _ZERO, _ZERO
        for j in range(x.shape[1]):
            first += x[r, j] * x[r, j]
            second += x[r + 1, j] * x[r + 1, j]
            third += x[r + 2, j] * x[r + 2, j]
            fourth += x[r + 3, j] * x[r + 3, j]
        out[r], out[r + 1], out[r + 2], out[r + 3] = first, second, third, fourth
    for r in range(rows, x.shape[0]):
        total = _ZERO
        for j in range(x.shape[1]):
            total += x[r, j] * x[r, j]
        out[r] = total
    for r in range(x.shape[0]):
        out[r] /= np.float32(x.shape[1])


@compiled
def _fill(x: Any, importance: Any, squares: Any, start: Any, count: Any, room: Any) -> None:
    """Copy groups `start` to `start + count` and the importance of their weights into the working memory of a search.

    Shapes: x f32 [groups, n], importance f32 [groups of a row, n], squares f32 [rows].
    """
    size, across = x.shape[1], importance.shape[0]
    weights = np.empty(size, np.float32)
    for g in range(count):
        group = start + g
        mean, at = squares[group // across], group % across
        for i in range(size):
            weights[i] = importance[at, i] * np.sqrt(mean + x[group, i] * x[group, i])
        for i in range(size):
            room[i * LANES + g] = x[group, i]
        for i in range(size):
            room[WEIGHTS + i * LANES + g] = weights[i]


@compiled
def fit_signed(x: Any, importance: Any, squares: Any, reach: Any, codes: Any, scales: Any) -> None:
    """Q4_0 (reach 8) and Q5_0 (reach 16): the scale by weighted search, and the codes of that search.

    Shapes: x f32 [groups, n], importance f32 [groups of a row, n], squares f32 [rows], codes u8 like x,
    scales f32 [groups].
    """
    room, fitted = np.zeros(ROOM, np.float32), np.empty((2, LANES), np.float32)
    for start in range(0, x.shape[0], LANES):
        count = min(LANES, x.shape[0] - start)
        _fill(x, importance, squares, start, count, room)
        search_scales(room, x.shape[1], reach, fitted)
        for g in range(count):
            scales[start + g] = fitted[0, g]
            choose_levels(x[start + g], fitted[1, g], reach, codes[start + g])


@compiled
def fit_affine(x: Any, importance: Any, squares: Any, rule: Any, codes: Any, scales: Any, minima: Any) -> None:
    """Scale and minimum by weighted search, and the codes of that search; `rule` as of `search_ranges`.

    Shapes as of `fit_signed`, minima like scales.
    """
    room, fitted = np.zeros(ROOM, np.float32), np.empty((4, LANES), np.float32)
    top = rule[0]
    for start in range(0, x.shape[0], LANES):
        count = min(LANES, x.shape[0] - start)
        _fill(x, importance, squares, start, count, room)
        search_ranges(room, x.shape[1], rule, fitted)
        for g in range(count):
            scales[start + g], minima[start + g] = fitted[0, g], fitted[1, g]
            inverse, origin = fitted[2, g], fitted[3, g]
            for i in range(x.shape[1]):
                codes[start + g, i] = np.uint8(nearest_code(inverse * (x[start + g, i] - origin), top))


@compiled
def _assess(x: Any, weights: Any, scale: Any, minimum: Any, top: Any, codes: Any) -> Any:
    """Nearest codes of a group; returns the weighted squared error and the best minimum for these codes."""
    inverse = np.float32(1) / scale if scale != _ZERO else _ZERO
    error, rest, total = _ZERO, _ZERO, _ZERO
    for i in range(x.size):
        level = min(top, max(_ZERO, np.float32(np.rint((x[i] - minimum) * inverse))))
        codes[i] = np.uint8(np.int32(level))
        distance = x[i] - scale * level
        error += weights[i] * ((distance - minimum) * (distance - minimum))
        rest += weights[i] * distance
        total += weights[i]
    return error, rest / total if total > _ZERO else minimum


@compiled
def settle(x: Any, importance: Any, squares: Any, top: Any, fitted: Any, best: Any, codes: Any) -> None:
    """Round scales and minima to BF16 and choose the nearest codes, by whichever of three proposals errs least.

    The proposals are `best`, `fitted`, and `fitted` with its minimum fitted again to the rounded scale.

    Shapes: x, importance, squares and codes as of `fit_signed`; fitted and best, which is overwritten, f32 [2, groups]:
    scales and minima. `top` is the largest code, f32.
    """
    size, across = x.shape[1], importance.shape[0]
    weights, tried = np.empty(size, np.float32), np.empty(size, np.uint8)
    for g in range(x.shape[0]):
        for i in range(size):
            weights[i] = importance[g % across, i] * np.sqrt(squares[g // across] + x[g, i] * x[g, i])
        best[0, g], best[1, g] = round_bf16(best[0, g]), round_bf16(best[1, g])
        least, _ = _assess(x[g], weights, best[0, g], best[1, g], top, codes[g])
        scale, minimum = round_bf16(fitted[0, g]), fitted[1, g]
        for _ in range(2):
            minimum = round_bf16(minimum)
            error, refitted = _assess(x[g], weights, scale, minimum, top, tried)
            if error < least:
                least = error
                best[0, g], best[1, g] = scale, minimum
                for i in range(size):
                    codes[g, i] = tried[i]
            minimum = refitted
