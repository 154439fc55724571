"""The search for the scale of types with a codebook: ggml's IQ4_NL and IQ4_XS, with and without importance.

The reference's operations (ggml-quants.c, quantize_row_iq4_nl_impl) run for many blocks side by side, a lane each:
every block goes through the same f32 operations in the same order, so the bytes agree, and the lanes vectorise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gemmaq.encodings import Encoding, Quantized
from gemmaq.encodings.kernels import levels_of, round_to_levels
from gemmaq.encodings.lanes import LANES, OWN, ROOM, WEIGHTS, fill
from gemmaq.encodings.scale_search import EPSILON
from gemmaq.encodings.weighing import mean_squares, squares, weigh
from gemmaq.jit import compiled

if TYPE_CHECKING:
    from gemmaq.encodings import F32

_STEPS = 7  # candidates to either side of the first
_INVERSE, _LEVEL, _SUM_QX, _SUM_Q2 = (OWN + k * LANES for k in range(4))

_ZERO = np.float32(0)
_ONE = np.float32(1)


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
def fit_levels(x: Any, weights: Any, levels: Any, middles: Any, scales: Any) -> None:
    """Scale of every group by a search over candidates, so that levels times scale come close to the weights.

    Args:
        x: f32 [groups, n], n up to LARGEST.
        weights: importances of the weights, f32 [groups, n].
        levels: f32 [codes].
        middles: f32 [codes - 1], see `kernels.levels_of`.
        scales: f32 [groups], output.
    """
    room, best = np.zeros(ROOM, np.float32), np.empty(LANES, np.float32)
    for start in range(0, x.shape[0], LANES):
        count = fill(room, x, weights, start)
        _search(room, x.shape[1], levels, middles, best)
        for g in range(count):
            scales[start + g] = best[g]


def fitted_scales(encoding: Encoding, x: F32, columns: F32 | None, group: int) -> F32:
    """Scale of every group of rows f32 [rows, columns] in a type with a codebook; f32 [groups].

    Args:
        encoding: the type.
        x: rows.
        columns: importance of every column, f32 [columns], None to weigh errors by the weights alone.
        group: weights that have a scale of their own.
    """
    groups, scales = x.reshape(-1, group), np.empty(x.size // group, np.float32)
    if columns is None:
        weights = squares(groups)
    else:
        weights = weigh(groups, mean_squares(x.reshape(-1, encoding.block), 2), columns)
    fit_levels(groups, weights, *levels_of(encoding.codebook), scales)
    return scales


@compiled
def _fit_once(x: Any, levels: Any, codes: Any, scales: Any) -> None:
    """Scales f32 [blocks] by least squares on given codes u8 [blocks, n], errors weighed by the squares of x."""
    for b in range(x.shape[0]):
        sum_qx, sum_q2, largest = _ZERO, _ZERO, _ZERO
        for j in range(x.shape[1]):
            level = levels[codes[b, j]]
            weighted = x[b, j] * x[b, j] * level
            sum_qx += weighted * x[b, j]
            sum_q2 += weighted * level
            largest = max(largest, abs(x[b, j]))
        scales[b] = sum_qx / sum_q2 if sum_q2 > _ZERO and largest >= EPSILON else _ZERO


def quantize_once(encoding: Encoding, x: F32) -> Quantized:
    """As `quantize`, without the search: levels are those of the extreme at the first level (quantize_row_iq4_nl_ref).

    ggml does so with numbers that are quantized while a model runs, those of a KV cache. Codes are not chosen again
    for the final scale.
    """
    levels, middles = levels_of(encoding.codebook)
    blocks = x.reshape(-1, encoding.block)
    codes, scales = np.empty(blocks.shape, np.uint8), np.empty(len(blocks), np.float32)
    extremes = blocks[np.arange(len(blocks)), np.abs(blocks).argmax(axis=1)]
    round_to_levels(blocks, extremes / levels[0], middles, codes)
    _fit_once(blocks, levels, codes, scales)
    return Quantized(codes.reshape(x.shape), scales.reshape(len(x), -1))


def quantize(encoding: Encoding, x: F32, columns: F32 | None = None) -> Quantized:
    """Codes and scales of rows f32 [rows, columns] in a CODEBOOK type; `columns` as in `fitted_scales`."""
    blocks = x.reshape(-1, encoding.block)
    scales, codes = fitted_scales(encoding, x, columns, encoding.block), np.empty(blocks.shape, np.uint8)
    round_to_levels(blocks, scales, levels_of(encoding.codebook)[1], codes)
    return Quantized(codes.reshape(x.shape), scales.reshape(len(x), -1))
