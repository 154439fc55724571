"""The ggml types with blocks of 32 weights: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0.

A block is its FP16 scale, then for Q4_1 and Q5_1 the FP16 minimum, for Q5 the fifth bits, then the codes.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from gemmaq.encodings import Codec, Quantized, fused, kernels, packing_kernels
from gemmaq.encodings.rounding import narrow_f16, widen_f16

if TYPE_CHECKING:
    from gemmaq.encodings import F32, U8

BLOCK = kernels.BLOCK


def half_bytes(values: F32) -> U8:
    """F32 [n] -> their FP16 bytes, u8 [n, 2], to nearest even; too large becomes infinite."""
    out = np.empty(values.size, np.uint16)
    narrow_f16(values.reshape(-1), out)
    return out.view(np.uint8).reshape(-1, 2)


def halves(raw: U8) -> F32:
    """FP16 bytes u8 [n, 2] -> f32 [n]."""
    out = np.empty(len(raw), np.float32)
    widen_f16(np.ascontiguousarray(raw).view(np.uint16).reshape(-1), out)
    return out


def _empty(x: F32) -> tuple[F32, U8, F32]:
    """Blocks of x, and empty arrays for their codes and scales."""
    blocks = x.reshape(-1, BLOCK)
    return blocks, np.empty(blocks.shape, np.uint8), np.empty(len(blocks), np.float32)


def _nearest_signed(half: int, x: F32) -> Quantized:
    blocks, codes, scales = _empty(x)
    kernels.nearest_signed(blocks, np.float32(half), codes, scales)
    return Quantized(codes.reshape(x.shape), scales.reshape(len(x), -1))


def _nearest_affine(levels: int, x: F32) -> Quantized:
    blocks, codes, scales = _empty(x)
    minima = np.empty_like(scales)
    kernels.nearest_affine(blocks, np.float32(levels), codes, scales, minima)
    return Quantized(codes.reshape(x.shape), scales.reshape(len(x), -1), minima.reshape(len(x), -1))


def _nearest_q8_0(x: F32) -> Quantized:
    blocks, codes, scales = _empty(x)
    kernels.nearest_absmax(blocks, codes, scales)
    return Quantized(codes.reshape(x.shape), scales.reshape(len(x), -1))


def _pack(bits: int, q: Quantized) -> U8:
    codes = q.codes.reshape(-1, BLOCK)
    head = half_bytes(q.scales)
    if q.minima is not None:
        head = np.hstack([head, half_bytes(q.minima)])
    at = head.shape[1]
    out = np.empty((len(codes), at + 4 * bits), np.uint8)
    if bits == 8:
        packing_kernels.pack_bytes(head, codes, out)
    elif bits == 5:
        packing_kernels.pack_fifth_bits(codes, at, out)
        packing_kernels.pack_nibbles(head, codes, at + 4, out)
    else:
        packing_kernels.pack_nibbles(head, codes, at, out)
    return out.reshape(len(q.codes), -1)


def _read(bits: int, affine: bool, raw: U8) -> Quantized:
    at = 4 if affine else 2
    blocks = raw.reshape(-1, at + 4 * bits)
    codes = np.empty((len(blocks), BLOCK), np.uint8)
    scales = halves(blocks[:, :2])
    minima = halves(blocks[:, 2:4]).reshape(len(raw), -1) if affine else None
    if bits == 8:
        packing_kernels.unpack_bytes(blocks, at, codes)
    else:
        packing_kernels.unpack_nibbles(blocks, at + (4 if bits == 5 else 0), codes)
        if bits == 5:
            packing_kernels.unpack_fifth_bits(blocks, at, codes)
    return Quantized(codes.reshape(len(raw), -1), scales.reshape(len(raw), -1), minima)


CODECS = {
    "q4_0": Codec(
        partial(_read, 4, False),
        partial(_nearest_signed, 8),
        partial(_pack, 4),
        fused=fused.q4_0,
        errors=fused.errors,
    ),
    "q4_1": Codec(partial(_read, 4, True), partial(_nearest_affine, 15), partial(_pack, 4)),
    "q5_0": Codec(partial(_read, 5, False), partial(_nearest_signed, 16), partial(_pack, 5)),
    "q5_1": Codec(partial(_read, 5, True), partial(_nearest_affine, 31), partial(_pack, 5)),
    "q8_0": Codec(partial(_read, 8, False), _nearest_q8_0, partial(_pack, 8), fused=fused.q8_0, errors=fused.errors),
}
