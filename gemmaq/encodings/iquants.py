"""IQ4_NL: blocks of 32 four-bit codes that stand for sixteen levels, finer around 0 than towards the ends.

A block is its FP16 scale and 16 bytes of codes, as in Q4_0; a weight is scale * level. The search for the scale is
ggml's (ggml-quants.c, quantize_row_iq4_nl_impl), run for many blocks side by side, a lane each, so that it vectorises:
every block sees the same f32 operations in the same order, and the bytes agree.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gemmaq.encodings import ENCODINGS, Codec, Quantized, kernels, packing_kernels
from gemmaq.encodings.lanes import LANES, ROOM, WEIGHTS
from gemmaq.encodings.legacy import half_bytes, halves
from gemmaq.encodings.scale_search import EPSILON
from gemmaq.jit import compiled

if TYPE_CHECKING:
    from gemmaq.encodings import F32, U8

_IQ4_NL = ENCODINGS["iq4_nl"]
BLOCK = _IQ4_NL.block
_STEPS = 7  # candidates to either side of the first
_INVERSE, _LEVEL, _SUM_QX, _SUM_Q2 = (3 * WEIGHTS + k * LANES for k in range(4))

_ZERO = np.float32(0)
_ONE = np.float32(1)


@compiled
def _weigh(room: Any, importance: Any, first: Any) -> None:
    """How much the error of each weight counts: x^2, or with importance f32 [blocks of a row, 32] ggml's weighted rule.

    `first` is the index of the block in lane 0. The mean square is that of the block, twice.
    """
    across = importance.shape[0]
    for g in range(LANES):
        squares = _ZERO
        for i in range(BLOCK):
            squares += room[i * LANES + g] * room[i * LANES + g]
        squares *= np.float32(2) / np.float32(BLOCK)
        for i in range(BLOCK):
            square = room[i * LANES + g] * room[i * LANES + g]
            if across > 0:
                square = importance[(first + g) % across, i] * np.sqrt(squares + square)
            room[WEIGHTS + i * LANES + g] = square


@compiled
def _add_up(room: Any, levels: Any, middles: Any) -> None:
    """Sums of a regression of the weights on the nearest levels for the inverse scale of every lane."""
    for g in range(LANES):
        room[_SUM_QX + g], room[_SUM_Q2 + g] = _ZERO, _ZERO
    for i in range(BLOCK):
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
def _search(room: Any, levels: Any, middles: Any, scales: Any) -> None:
    """Scale of every lane by weighted least squares on the levels of 16 candidates, the best of all, f32 [LANES]."""
    extreme, best = np.zeros(LANES, np.float32), np.zeros(LANES, np.float32)
    for i in range(BLOCK):
        for g in range(LANES):
            x = room[i * LANES + g]
            extreme[g] = x if abs(x) > abs(extreme[g]) else extreme[g]
    for turn in range(2 * _STEPS + 2):
        end = levels[0] + np.float32(turn - _STEPS - 1)
        for g in range(LANES):
            first = _ONE / (-extreme[g] / levels[0])  # the first is taken whatever it explains
            room[_INVERSE + g] = first if turn == 0 else end / extreme[g]
        _add_up(room, levels, middles)
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
def _fit(x: Any, importance: Any, levels: Any, middles: Any, scales: Any) -> None:
    """Scales f32 [blocks] of blocks f32 [blocks, 32]; importance f32 [blocks of a row, 32], or [0, 32] for none."""
    room, found = np.zeros(ROOM, np.float32), np.empty(LANES, np.float32)
    for start in range(0, x.shape[0], LANES):
        count = min(LANES, x.shape[0] - start)
        for g in range(count):
            for i in range(BLOCK):
                room[i * LANES + g] = x[start + g, i]
        _weigh(room, importance, start)
        _search(room, levels, middles, found)
        for g in range(count):
            scales[start + g] = found[g]


def _quantize(x: F32, importance: F32) -> Quantized:
    """Codes and scales of rows, by ggml's search; see `_fit`."""
    blocks = x.reshape(-1, BLOCK)
    codes, scales = np.empty(blocks.shape, np.uint8), np.empty(len(blocks), np.float32)
    levels, middles = kernels.levels_of(_IQ4_NL.codebook)
    _fit(blocks, importance, levels, middles, scales)
    kernels.round_to_levels(blocks, scales, middles, codes)
    return Quantized(codes.reshape(x.shape), scales.reshape(len(x), -1))


def _nearest(x: F32) -> Quantized:
    return _quantize(x, np.empty((0, BLOCK), np.float32))


def _weighted(x: F32, columns: F32) -> Quantized:
    return _quantize(x, np.ascontiguousarray(columns, np.float32).reshape(-1, BLOCK))


def _pack(q: Quantized) -> U8:
    codes, scales = q.codes.reshape(-1, BLOCK), half_bytes(q.scales)
    out = np.empty((len(codes), _IQ4_NL.block_bytes), np.uint8)
    packing_kernels.pack_nibbles(scales, codes, 2, out)
    return out.reshape(len(q.codes), -1)


def _read(raw: U8) -> Quantized:
    blocks = raw.reshape(-1, _IQ4_NL.block_bytes)
    codes = np.empty((len(blocks), BLOCK), np.uint8)
    packing_kernels.unpack_nibbles(blocks, 2, codes)
    return Quantized(codes.reshape(len(raw), -1), halves(blocks[:, :2]).reshape(len(raw), -1))


CODECS = {"iq4_nl": Codec(_read, _nearest, _pack, _weighted)}
