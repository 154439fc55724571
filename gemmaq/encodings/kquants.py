"""Q6_K: super-blocks of 256 weights around zero, in sixteen groups of 16."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gemmaq.encodings import Codec, Quantized
from gemmaq.encodings.lanes import LANES, ROOM, WEIGHTS
from gemmaq.encodings.legacy import half_bytes, halves
from gemmaq.encodings.scale_search import EPSILON, choose_levels, nearest_int, nearest_level, search_scales
from gemmaq.jit import compiled

if TYPE_CHECKING:
    from gemmaq.encodings import F32, U8

SUPER = 256
GROUP = 16
GROUPS = SUPER // GROUP
_REACH = np.float32(32)

_ZERO = np.float32(0)
_ONE = np.float32(1)


@compiled
def _search_groups(x: Any, reach: Any, scales: Any, inverses: Any) -> None:
    """Step 1: scale of every group, errors weighed by x^2, and the inverse scale that its codes are rounded with.

    Shapes: x f32 [groups, 16], scales and inverses f32 [groups]. `reach` is 32.
    """
    room, part = np.zeros(ROOM, np.float32), np.empty((2, LANES), np.float32)
    for start in range(0, x.shape[0], LANES):
        count = min(LANES, x.shape[0] - start)
        for g in range(count):
            for i in range(GROUP):
                value = x[start + g, i]
                room[i * LANES + g], room[WEIGHTS + i * LANES + g] = value, value * value
        search_scales(room, GROUP, reach, part)
        for g in range(count):
            scales[start + g], inverses[start + g] = part[0, g], part[1, g]


@compiled
def _round_scales(x: Any, fitted: Any, inverses: Any, codes: Any, scales: Any, supers: Any, recode: Any) -> None:
    """Step 2: scales as integer multiples of one super-scale a block, and the codes of the search.

    Shapes: x f32 [blocks, 256], fitted and inverses f32 [groups] from `_search_groups`, codes u8 like x,
    scales f32 [blocks, 16] (integers), supers f32 [blocks]; recode bool [blocks], output, False for blocks of zeros.
    """
    for b in range(x.shape[0]):
        largest = _ZERO
        for g in range(b * GROUPS, (b + 1) * GROUPS):
            if abs(fitted[g]) > abs(largest):
                largest = fitted[g]
        recode[b] = abs(largest) >= EPSILON
        if not recode[b]:
            codes[b] = 0
            scales[b] = _ZERO
            supers[b] = _ZERO
            continue
        inverse = np.float32(-128) / largest
        supers[b] = _ONE / inverse
        for g in range(GROUPS):
            at = b * GROUPS + g
            scales[b, g] = min(np.float32(127), nearest_int(inverse * fitted[at]))
            part = slice(g * GROUP, (g + 1) * GROUP)
            choose_levels(x[b, part], inverses[at], _REACH, codes[b, part])


@compiled
def _recode_q6_k(x: Any, codes: Any, scales: Any, supers: Any, recode: Any) -> None:
    """Step 3: codes for the rounded scales; supers are rounded to FP16 already."""
    for b in range(x.shape[0]):
        if not recode[b]:
            continue
        for g in range(GROUPS):
            d = supers[b] * scales[b, g]
            if d == _ZERO:
                continue
            for i in range(g * GROUP, (g + 1) * GROUP):
                codes[b, i] = np.uint8(np.int32(nearest_level(x[b, i] / d, _REACH)) + 32)


def _nearest_q6_k(x: F32) -> Quantized:
    blocks = x.reshape(-1, SUPER)
    codes = np.empty(blocks.shape, np.uint8)
    scales = np.empty((len(blocks), GROUPS), np.float32)
    supers = np.empty(len(blocks), np.float32)
    recode = np.empty(len(blocks), np.bool_)
    fitted, inverses = np.empty(len(blocks) * GROUPS, np.float32), np.empty(len(blocks) * GROUPS, np.float32)
    _search_groups(x.reshape(-1, GROUP), _REACH, fitted, inverses)
    _round_scales(blocks, fitted, inverses, codes, scales, supers, recode)
    supers = halves(half_bytes(supers))
    _recode_q6_k(blocks, codes, scales, supers, recode)
    shape = (len(x), -1)
    return Quantized(codes.reshape(shape), scales.reshape(shape), supers=supers.reshape(shape))


@compiled
def _pack_q6_k(codes: Any, scales: Any, out: Any) -> None:
    for b in range(codes.shape[0]):
        for half in range(2):
            for j in range(32):
                a = codes[b, 128 * half + j]
                c = codes[b, 128 * half + j + 32]
                d = codes[b, 128 * half + j + 64]
                e = codes[b, 128 * half + j + 96]
                out[b, 64 * half + j] = (a & 15) | ((d & 15) << 4)
                out[b, 64 * half + j + 32] = (c & 15) | ((e & 15) << 4)
                out[b, 128 + 32 * half + j] = (a >> 4) | ((c >> 4) << 2) | ((d >> 4) << 4) | ((e >> 4) << 6)
        for g in range(GROUPS):
            out[b, 192 + g] = np.uint8(np.int32(scales[b, g]) & 255)


def _pack(q: Quantized) -> U8:
    codes = q.codes.reshape(-1, SUPER)
    out = np.empty((len(codes), 210), np.uint8)
    _pack_q6_k(codes, q.scales.reshape(-1, GROUPS), out)
    assert q.supers is not None
    out[:, 208:] = half_bytes(q.supers)
    return out.reshape(len(q.codes), -1)


@compiled
def _unpack_q6_k(raw: Any, codes: Any) -> None:
    for b in range(raw.shape[0]):
        for half in range(2):
            for j in range(32):
                low = raw[b, 64 * half + j]
                high = raw[b, 64 * half + j + 32]
                top = raw[b, 128 + 32 * half + j]
                at = 128 * half + j
                codes[b, at] = (low & 15) | ((top & 3) << 4)
                codes[b, at + 32] = (high & 15) | (((top >> 2) & 3) << 4)
                codes[b, at + 64] = (low >> 4) | (((top >> 4) & 3) << 4)
                codes[b, at + 96] = (high >> 4) | (((top >> 6) & 3) << 4)


def _read_q6_k(raw: U8) -> Quantized:
    blocks = raw.reshape(-1, 210)
    codes = np.empty((len(blocks), SUPER), np.uint8)
    _unpack_q6_k(blocks, codes)
    scales = blocks[:, 192:208].view(np.int8).astype(np.float32)
    shape = (len(raw), -1)
    return Quantized(codes.reshape(shape), scales.reshape(shape), supers=halves(blocks[:, 208:]).reshape(shape))


CODECS = {"q6_k": Codec(_read_q6_k, _nearest_q6_k, _pack)}
