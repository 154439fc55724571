"""Q4_K and Q5_K: super-blocks of 256 weights, in eight groups of 32 with a scale and a minimum each."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from gemmaq.encodings import Codec, Quantized
from gemmaq.encodings.lanes import LANES, ROOM, WEIGHTS
from gemmaq.encodings.legacy import half_bytes, halves
from gemmaq.encodings.range_search import nearest_int, nearest_level, search_ranges
from gemmaq.jit import compiled

if TYPE_CHECKING:
    from gemmaq.encodings import F32, U8

SUPER = 256
GROUP = 32
GROUPS = SUPER // GROUP

_ZERO = np.float32(0)
_TOP_SCALE = np.float32(63)  # six bits
_DELTA = np.float32(0.1)


@compiled
def _weigh(room: Any) -> None:
    """Weigh the error of every weight x by |x| + rms of its group."""
    for g in range(LANES):
        squares = _ZERO
        for i in range(GROUP):
            squares += room[i * LANES + g] * room[i * LANES + g]
        rms = np.sqrt(squares / np.float32(GROUP))
        for i in range(GROUP):
            room[WEIGHTS + i * LANES + g] = rms + abs(room[i * LANES + g])


@compiled
def _search_all(x: Any, rule: Any, fitted: Any) -> None:
    """Step 1: `search_ranges` for all groups, x f32 [groups, 32], fitted f32 [4, groups]."""
    room = np.zeros(ROOM, np.float32)
    part = np.empty((4, LANES), np.float32)
    for start in range(0, x.shape[0], LANES):
        count = min(LANES, x.shape[0] - start)
        for g in range(count):
            for i in range(GROUP):
                room[i * LANES + g] = x[start + g, i]
        _weigh(room)
        search_ranges(room, GROUP, rule, part)
        for k in range(4):  # assigning slices would take the compiler seconds
            for g in range(count):
                fitted[k, start + g] = part[k, g]


@compiled
def _round_scales(values: Any, supers: Any, rounded: Any) -> None:
    """Step 2: scales, or negated minima, as six-bit multiples of one super-scale a block.

    Shapes: values f32 [blocks, 8], supers f32 [blocks], rounded f32 [blocks, 8].
    """
    for b in range(values.shape[0]):
        largest = _ZERO
        for g in range(GROUPS):
            largest = values[b, g] if values[b, g] > largest else largest
        supers[b] = largest / _TOP_SCALE
        inverse = _TOP_SCALE / largest if largest > _ZERO else _ZERO
        for g in range(GROUPS):
            whole = nearest_int(inverse * values[b, g]) & np.int32(255)  # the reference has it in a byte
            rounded[b, g] = np.float32(min(whole, np.int32(63)))


@compiled
def _recode(x: Any, top: Any, fitted: Any, q: Any, codes: Any) -> None:
    """Step 3: codes for the rounded scales and minima; where a scale became 0, the codes of the search.

    Shapes: x f32 [groups, 32], codes u8 alike, fitted f32 [4, groups] from `_search_all`; q is the tuple of scales and
    minima, f32 [blocks, 8], and of their super-scales rounded to FP16, f32 [blocks].
    """
    scales, minima, supers, super_minima = q
    for g in range(x.shape[0]):
        block, at = g // GROUPS, g % GROUPS
        scale = supers[block] * scales[block, at]
        minimum = super_minima[block] * minima[block, at]
        if scale == _ZERO:
            inverse, origin = fitted[2, g], fitted[3, g]
            for i in range(x.shape[1]):
                codes[g, i] = np.uint8(nearest_level(inverse * (x[g, i] - origin), top))
        else:
            for i in range(x.shape[1]):
                codes[g, i] = np.uint8(nearest_level((x[g, i] - minimum) / scale, top))


def _nearest(bits: int, first: float, steps: int, x: F32) -> Quantized:
    groups, blocks = x.reshape(-1, GROUP), x.size // SUPER
    top = np.int32((1 << bits) - 1)
    fitted = np.empty((4, len(groups)), np.float32)
    _search_all(groups, (top, np.float32(first), _DELTA, steps, _ZERO), fitted)
    scales, minima = np.empty((blocks, GROUPS), np.float32), np.empty((blocks, GROUPS), np.float32)
    supers, super_minima = np.empty(blocks, np.float32), np.empty(blocks, np.float32)
    _round_scales(fitted[0].reshape(-1, GROUPS), supers, scales)
    _round_scales(-fitted[1].reshape(-1, GROUPS), super_minima, minima)
    parts = (scales, minima, halves(half_bytes(supers)), -halves(half_bytes(super_minima)))
    codes = np.empty(groups.shape, np.uint8)
    _recode(groups, top, fitted, parts, codes)
    return _quantized(len(x), codes, *parts)


def _quantized(rows: int, codes: U8, scales: F32, minima: F32, supers: F32, super_minima: F32) -> Quantized:
    parts = (scales, minima, supers, super_minima)
    return Quantized(codes.reshape(rows, -1), *(part.reshape(rows, -1) for part in parts))


@compiled
def _pack_blocks(codes: Any, scales: Any, minima: Any, bits: Any, out: Any) -> None:
    """Bytes of every block behind its two super-scales; the reverse of `_unpack_blocks`."""
    at = 16 if bits == 4 else 48
    for b in range(codes.shape[0]):
        for g in range(4):
            scale, later_scale = np.uint8(scales[b, g]), np.uint8(scales[b, g + 4])
            minimum, later_minimum = np.uint8(minima[b, g]), np.uint8(minima[b, g + 4])
            out[b, 4 + g] = scale | ((later_scale >> 4) << 6)
            out[b, 8 + g] = minimum | ((later_minimum >> 4) << 6)
            out[b, 12 + g] = (later_scale & 15) | ((later_minimum & 15) << 4)
            for j in range(32):
                out[b, at + 32 * g + j] = (codes[b, 64 * g + j] & 15) | ((codes[b, 64 * g + 32 + j] & 15) << 4)
        if bits == 5:
            for j in range(32):
                fifth = np.uint8(0)
                for g in range(GROUPS):
                    fifth |= np.uint8((codes[b, 32 * g + j] >> 4) << g)
                out[b, 16 + j] = fifth


def _pack(bits: int, q: Quantized) -> U8:
    assert q.minima is not None and q.supers is not None and q.super_minima is not None
    codes = q.codes.reshape(-1, SUPER)
    out = np.empty((len(codes), 16 + 32 * bits), np.uint8)
    _pack_blocks(codes, q.scales.reshape(-1, GROUPS), q.minima.reshape(-1, GROUPS), bits, out)
    out[:, :2], out[:, 2:4] = half_bytes(q.supers), half_bytes(-q.super_minima)
    return out.reshape(len(q.codes), -1)


@compiled
def _unpack_blocks(raw: Any, bits: Any, codes: Any, scales: Any, minima: Any) -> None:
    """Codes u8 [blocks, 256], six-bit scales and minima f32 [blocks, 8] of Q4_K (bits 4) and Q5_K (bits 5)."""
    at = 16 if bits == 4 else 48
    for b in range(raw.shape[0]):
        for g in range(GROUPS):
            if g < 4:
                scale = raw[b, 4 + g] & 63
                minimum = raw[b, 8 + g] & 63
            else:
                scale = (raw[b, 8 + g] & 15) | ((raw[b, g] >> 6) << 4)
                minimum = (raw[b, 8 + g] >> 4) | ((raw[b, 4 + g] >> 6) << 4)
            scales[b, g] = np.float32(scale)
            minima[b, g] = np.float32(minimum)
            for j in range(32):
                nibble = (raw[b, at + 32 * (g // 2) + j] >> (4 * (g & 1))) & 15
                if bits == 5:
                    nibble |= ((raw[b, 16 + j] >> g) & 1) << 4
                codes[b, 32 * g + j] = nibble


def _read(bits: int, raw: U8) -> Quantized:
    blocks = raw.reshape(-1, 16 + 32 * bits)
    codes = np.empty((len(blocks), SUPER), np.uint8)
    scales, minima = np.empty((len(blocks), GROUPS), np.float32), np.empty((len(blocks), GROUPS), np.float32)
    _unpack_blocks(blocks, bits, codes, scales, minima)
    return _quantized(len(raw), codes, scales, minima, halves(blocks[:, :2]), -halves(blocks[:, 2:4]))


CODECS = {
    "q4_k": Codec(partial(_read, 4), partial(_nearest, 4, -1.0, 20), partial(_pack, 4)),
    "q5_k": Codec(partial(_read, 5), partial(_nearest, 5, -0.5, 15), partial(_pack, 5)),
}
