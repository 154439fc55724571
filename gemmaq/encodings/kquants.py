"""Q6_K and Q3_K: super-blocks of 256 weights around zero, in sixteen groups of 16."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gemmaq.encodings import ENCODINGS, Codec, Encoding, Quantized
from gemmaq.encodings.lanes import ends, nearest_level
from gemmaq.encodings.legacy import half_bytes, halves
from gemmaq.encodings.packing_kernels import pack_planes, unpack_planes
from gemmaq.encodings.scale_descent import signed_codes, signed_scales
from gemmaq.encodings.scale_search import EPSILON, signed
from gemmaq.encodings.weighing import mean_squares, weigh
from gemmaq.jit import compiled

if TYPE_CHECKING:
    from gemmaq.encodings import F32, U8

SUPER = 256
GROUP = 16
GROUPS = SUPER // GROUP

_ZERO = np.float32(0)
_ONE = np.float32(1)
_Q6_K, _Q3_K = ENCODINGS["q6_k"], ENCODINGS["q3_k"]


@compiled
def _round_scales(fitted: Any, low: Any, least: Any, scales: Any, supers: Any) -> None:
    """Scales as integer multiples, from `low` to -low - 1, of one super-scale a block; the largest becomes `low`.

    Shapes: fitted f32 [blocks, 16], scales alike, supers f32 [blocks]. Blocks without a scale of at least `least` get
    super-scales of 0, and their scales are not written.
    """
    bottom, top = ends(low, -low - 1)
    for b in range(fitted.shape[0]):
        largest = _ZERO
        for g in range(GROUPS):
            if abs(fitted[b, g]) > abs(largest):
                largest = fitted[b, g]
        supers[b] = _ZERO
        if abs(largest) >= least:
            inverse = np.float32(low) / largest
            supers[b] = _ONE / inverse
            for g in range(GROUPS):
                scales[b, g] = nearest_level(inverse * fitted[b, g], bottom, top)


@compiled
def _recode(x: Any, scales: Any, supers: Any, reach: Any, codes: Any) -> None:
    """Codes for the rounded scales; where a scale became 0, they stay those of the search.

    Shapes: x f32 [groups, 16], scales f32 [groups], supers f32 [blocks], codes u8 like x.
    """
    low, high = ends(-reach, reach - 1)
    for g in range(x.shape[0]):
        d = supers[g // GROUPS] * scales[g]
        if d != _ZERO:
            for i in range(x.shape[1]):  # of constant length, it would be unrolled and not vectorised
                codes[g, i] = np.uint8(np.int32(nearest_level(x[g, i] / d, low, high) + reach))


def _finish(x: F32, codes: U8, scales: F32, supers: F32, encoding: Encoding) -> Quantized:
    """The rows x with scales rounded to integers, f32 [blocks, 16], and super-scales not yet rounded, f32 [blocks]."""
    supers = halves(half_bytes(supers))
    _recode(x.reshape(-1, GROUP), scales.reshape(-1), supers, np.float32(encoding.zero), codes)
    shape = (len(x), -1)
    return Quantized(codes.reshape(shape), scales.reshape(shape), supers=supers.reshape(shape))


def _rounded(fitted: F32, low: int, least: np.float32, zero: float) -> tuple[F32, F32]:
    """Scales f32 [blocks, 16] and super-scales f32 [blocks], see `_round_scales`; `zero` is for blocks of zeros."""
    fitted = fitted.reshape(-1, GROUPS)
    scales, supers = np.full(fitted.shape, zero, np.float32), np.empty(len(fitted), np.float32)
    _round_scales(fitted, low, least, scales, supers)
    return scales, supers


def _quantize_q6_k(x: F32, columns: F32 | None = None) -> Quantized:
    groups = x.reshape(-1, GROUP)
    weights = None if columns is None else np.tile(columns, len(x)).reshape(-1, GROUP)
    codes, fitted = signed(groups, weights, 32)
    scales, supers = _rounded(fitted[0], -128, EPSILON, 0)
    codes.reshape(-1, SUPER)[supers == 0] = 0
    return _finish(x, codes, scales, supers, _Q6_K)


def _nearest_q3_k(x: F32) -> Quantized:
    groups = x.reshape(-1, GROUP)
    scales, supers = _rounded(signed_scales(groups, 4), -32, np.nextafter(_ZERO, _ONE), -32)
    codes = np.empty(groups.shape, np.uint8)
    zero = np.flatnonzero(scales * halves(half_bytes(supers))[:, None] == 0)
    if zero.size:  # nearly all codes are chosen again for the rounded scale
        codes[zero] = signed_codes(groups[zero], 4)
    return _finish(x, codes, scales, supers, _Q3_K)


def _weighted_q3_k(x: F32, columns: F32) -> Quantized:
    groups = x.reshape(-1, GROUP)
    weights = weigh(groups, mean_squares(x.reshape(-1, SUPER), 2), columns)
    codes, fitted = signed(groups, weights, 4)
    multiples, supers = signed(fitted[0].reshape(-1, GROUPS), fitted[2].reshape(-1, GROUPS), 32)
    return _finish(x, codes, multiples.astype(np.float32) - 32, supers[0], _Q3_K)


def _pack_q6_k(q: Quantized) -> U8:
    codes = q.codes.reshape(-1, SUPER)
    out = np.empty((len(codes), _Q6_K.block_bytes), np.uint8)
    pack_planes(codes, (4, 0, 64, 0), out)
    pack_planes(codes, (2, 4, 32, 128), out)
    assert q.supers is not None
    out[:, 192:208] = q.scales.reshape(-1, GROUPS).astype(np.int8).view(np.uint8)
    out[:, 208:] = half_bytes(q.supers)
    return out.reshape(len(q.codes), -1)


def _read_q6_k(raw: U8) -> Quantized:
    blocks = raw.reshape(-1, _Q6_K.block_bytes)
    codes = np.zeros((len(blocks), SUPER), np.uint8)
    unpack_planes(blocks, (4, 0, 64, 0), codes)
    unpack_planes(blocks, (2, 4, 32, 128), codes)
    scales = blocks[:, 192:208].view(np.int8).astype(np.float32)
    shape = (len(raw), -1)
    return Quantized(codes.reshape(shape), scales.reshape(shape), supers=halves(blocks[:, 208:]).reshape(shape))


def _pack_q3_k(q: Quantized) -> U8:
    codes = q.codes.reshape(-1, SUPER)
    out = np.empty((len(codes), _Q3_K.block_bytes), np.uint8)
    pack_planes(codes, (1, 2, 32, 0), out)
    pack_planes(codes, (2, 0, 32, 32), out)
    assert q.supers is not None
    scales = (q.scales.reshape(-1, GROUPS) + 32).astype(np.uint8)
    pack_planes(scales, (4, 0, 8, 96), out)
    pack_planes(scales, (2, 4, 4, 104), out)
    out[:, 108:] = half_bytes(q.supers)
    return out.reshape(len(q.codes), -1)


def _read_q3_k(raw: U8) -> Quantized:
    blocks = raw.reshape(-1, _Q3_K.block_bytes)
    codes, scales = np.zeros((len(blocks), SUPER), np.uint8), np.zeros((len(blocks), GROUPS), np.uint8)
    unpack_planes(blocks, (1, 2, 32, 0), codes)
    unpack_planes(blocks, (2, 0, 32, 32), codes)
    unpack_planes(blocks, (4, 0, 8, 96), scales)
    unpack_planes(blocks, (2, 4, 4, 104), scales)
    numbers, shape = scales.astype(np.float32) - 32, (len(raw), -1)
    return Quantized(codes.reshape(shape), numbers.reshape(shape), supers=halves(blocks[:, 108:]).reshape(shape))


CODECS = {
    "q6_k": Codec(_read_q6_k, _quantize_q6_k, _pack_q6_k, _quantize_q6_k),
    "q3_k": Codec(_read_q3_k, _nearest_q3_k, _pack_q3_k, _weighted_q3_k),
}
