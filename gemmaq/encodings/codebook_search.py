"""The search for the scale of types with a codebook: ggml's IQ4_NL, with and without an importance matrix.

The reference's operations (ggml-quants.c, quantize_row_iq4_nl_impl) run for many blocks side by side, a lane each:
every block goes through the same f32 operations in the same order, so the bytes agree, and the lanes vectorise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gemmaq.encodings import Encoding, Quantized
from gemmaq.encodings.kernels import levels_of, round_to_levels
from gemmaq.encodings.lanes import LANES, ROOM, WEIGHTS
from gemmaq.encodings.scale_search import EPSILON
from gemmaq.jit import compiled

if TYPE_CHECKING:
    from gemmaq.encodings import F32

_STEPS = 7  # candidates to either side of the first
_INVERSE, _LEVEL, _SUM_QX, _SUM_Q2 = (3 * WEIGHTS + k * LANES for k in range(4))

_ZERO = np.float32(0)
_ONE = np.float32(1)


@compiled
def _weigh(room: Any, importance: Any, first: Any) -> None:
    """How much the error of each weight x counts: x^2, or its column's importance times sqrt(2 mean(x^2) + x^2).

    The mean is that of the block. `first` is the index of the block in lane 0, importance as in `fit_levels`.
    """
    across, size = importance.shape
    for g in range(LANES):
        squares = _ZERO
        for i in range(size):
            squares += room[i * LANES + g] * room[i * LANES + g]
        squares *= np.float32(2) / np.float32(size)
        for i in range(size):
            square = room[i * LANES + g] * room[i * LANES + g]
            if across > 0:
                square = importance[(first + g) % across, i] * np.sqrt(squares + square)
            room[WEIGHTS + i * LANES + g] = square


@compiled
def _add_up(room: Any, size: Any, levels: Any, middles: Any) -> None:
    """Sums of a regression of the weights on the nearest levels for the inverse scale of every lane."""
    for g in range(LANES):
        room[_SUM_QX + g], room[_SUM_Q2 + g] = _ZERO, _ZERO
    for i in range(size):
        for g in range(LANES):
            room[_LEVEL + g] = levels[0]
        for k in range(middles.size):
            middle, rise = middles[k], levels[k + 1] - levels[k]
            for g in range(LANES):
                reached = not room[_INVERSE + g] * room[i * LANES + g] < middle
                room[_LEVEL + g] += rise if reached else _ZERO
        for g in range(LANES):
            level = room[_LEVEL + g]
            weighted = room[WEIGHTS + i * LANES + g] * level
            room[_SUM_QX + g] += weighted * room[i * LANES + g]
            room[_SUM_Q2 + g] += weighted * level


@compiled
def _search(room: Any, size: Any, levels: Any, middles: Any, scales: Any) -> None:
    """Scale of every lane by weighted least squares on the levels of 16 candidates, the best of all, f32 [LANES]."""
    extreme, best = np.zeros(LANES, np.float32), np.zeros(LANES, np.float32)
    for i in range(size):
        for g in range(LANES):
            x = room[i * LANES + g]
            extreme[g] = x if abs(x) > abs(extreme[g]) else extreme[g]
    for turn in range(2 * _STEPS + 2):
        end = levels[0] + np.float32(turn - _STEPS - 1)
        for g in range(LANES):
            first = _ONE / (-extreme[g] / levels[0])  # the first is taken whatever it explains
            room[_INVERSE + g] = first if turn == 0 else end / extreme[g]
        _add_up(room, size, levels, middles)
        for g in range(LANES):
            sum_qx, sum_q2 = room[_SUM_QX + g], room[_SUM_Q2 + g]
            gain = np.int32(sum_q2 > _ZERO) & np.int32(sum_qx * sum_qx > best[g] * sum_q2)
            better = gain | np.int32(turn == 0)
            ratio = sum_qx / sum_q2 if sum_q2 > _ZERO else _ZERO
            scales[g] = ratio if better != 0 else scales[g]
            best[g] = ratio * sum_qx if better != 0 else best[g]
    for g in range(LANES):
        scales[g] = scales[g] if abs(extreme[g]) >= EPSILON else _ZERO


@compiled
def fit_levels(x: Any, importance: Any, levels: Any, middles: Any, scales: Any) -> None:
    """Scale of every block by a search over candidates, so that levels times scale come close to the weights.

    Args:
        x: f32 [blocks, n], n up to LARGEST.
        importance: importance of the columns, f32 [blocks of a row, n], or [0, n] for none.
        levels: f32 [codes].
        middles: f32 [codes - 1], see `kernels.levels_of`.
        scales: f32 [blocks], output.
    """
    size = x.shape[1]
    room, best = np.zeros(ROOM, np.float32), np.empty(LANES, np.float32)
    for start in range(0, x.shape[0], LANES):
        count = min(LANES, x.shape[0] - start)
        for g in range(count):
            for i in range(size):
                room[i * LANES + g] = x[start + g, i]
        _weigh(room, importance, start)
        _search(room, size, levels, middles, best)
        for g in range(count):
            scales[start + g] = best[g]


def quantize(encoding: Encoding, x: F32, columns: F32 | None = None) -> Quantized:
    """Codes and scales of rows f32 [rows, columns] in a CODEBOOK type.

    Args:
        encoding: the type.
        x: rows.
        columns: importance of every column, f32 [columns], None to weigh errors by the weights alone.
    """
    blocks = x.reshape(-1, encoding.block)
    importance = np.empty(0, np.float32) if columns is None else np.ascontiguousarray(columns, np.float32)
    codes, scales = np.empty(blocks.shape, np.uint8), np.empty(len(blocks), np.float32)
    levels, middles = levels_of(encoding.codebook)
    fit_levels(blocks, importance.reshape(-1, encoding.block), levels, middles, scales)
    round_to_levels(blocks, scales, middles, codes)
    return Quantized(codes.reshape(x.shape), scales.reshape(len(x), -1))
