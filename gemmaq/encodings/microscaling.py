"""Types whose codes are floating point numbers of four or eight bits: MXFP4, NVFP4, MXFP8, FP8.

A block shares a scale of one byte, a power of two (E8M0) or a floating point number itself (E4M3); in FP8 a row shares
a BF16 scale. A block of GGUF's MXFP4 is the scale, then the codes as in Q4_0.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from gemmaq.encodings import ENCODINGS, Codec, Quantized, packing_kernels
from gemmaq.encodings import microscaling_kernels as kernels
from gemmaq.encodings.rounding import as_bf16
from gemmaq.encodings.small_floats import SCALES
from gemmaq.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from gemmaq.encodings import F32, U8

_MXFP4 = ENCODINGS["mxfp4"]


def pack_scales(kind: str, scales: F32) -> U8:
    """Scales as bytes, u8 of the same shape.

    Args:
        kind: number type, a key of `SCALES`.
        scales: f32; for E8M0 powers of two.
    """
    flat = np.ascontiguousarray(scales).reshape(-1)
    out = np.empty(flat.size, np.uint8)
    if kind == "e4m3":
        kernels.to_e4m3(flat, out)
    else:
        out[:] = flat.view(np.uint32) >> np.uint32(23)
    return out.reshape(scales.shape)


def unpack_scales(kind: str, raw: U8) -> F32:
    """The reverse of `pack_scales`."""
    numbers: F32 = np.array(SCALES[kind], np.float32)[raw]
    return numbers


def _fitted(x: F32, block: int, fit: Callable[[F32, U8, F32], None]) -> Quantized:
    """Codes and scales of rows by a loop over blocks."""
    blocks = x.reshape(-1, block)
    codes, scales = np.empty(blocks.shape, np.uint8), np.empty(len(blocks), np.float32)
    fit(blocks, codes, scales)
    return Quantized(codes.reshape(x.shape), scales.reshape(len(x), -1))


def _nearest_mxfp4(x: F32) -> Quantized:
    return _fitted(x, 32, kernels.nearest_mxfp4)


def _nearest_mxfp8(x: F32) -> Quantized:
    return _fitted(x, 32, kernels.nearest_mxfp8)


def _nearest_nvfp4(unit: float, x: F32) -> Quantized:
    """Scales in 1/unit; weights beyond the largest are refused."""
    largest = 6 * 448 / unit
    values = _fitted(x, 16, lambda *arrays: kernels.nearest_nvfp4(arrays[0], np.float32(unit), *arrays[1:]))
    if values.scales.max() * 6 >= largest and np.abs(x).max() > 1.05 * largest:
        raise InputError(f"has weights beyond {largest:g}, the largest of NVFP4 here", "mxfp4 holds them")
    return values


def _nearest_fp8(x: F32) -> Quantized:
    """The largest weight of every row becomes 448."""
    scales = as_bf16(np.abs(x).max(axis=1) / np.float32(448))
    codes = np.empty(x.shape, np.uint8)
    kernels.round_to_e4m3(x, scales, codes)
    return Quantized(codes, scales.reshape(-1, 1))


def _pack_mxfp4(q: Quantized) -> U8:
    codes = q.codes.reshape(-1, _MXFP4.block)
    out = np.empty((len(codes), _MXFP4.block_bytes), np.uint8)
    packing_kernels.pack_nibbles(pack_scales(_MXFP4.scales, q.scales.reshape(-1, 1)), codes, 1, out)
    return out.reshape(len(q.codes), -1)


def _read_mxfp4(raw: U8) -> Quantized:
    blocks = raw.reshape(-1, _MXFP4.block_bytes)
    codes = np.empty((len(blocks), _MXFP4.block), np.uint8)
    packing_kernels.unpack_nibbles(blocks, 1, codes)
    scales = unpack_scales(_MXFP4.scales, blocks[:, 0])
    return Quantized(codes.reshape(len(raw), -1), scales.reshape(len(raw), -1))


CODECS = {
    "mxfp4": Codec(_read_mxfp4, _nearest_mxfp4, _pack_mxfp4),
    "fp8": Codec(nearest=_nearest_fp8),
    "mxfp8": Codec(nearest=_nearest_mxfp8),
    "nvfp4": Codec(nearest=partial(_nearest_nvfp4, 1), divided=partial(_nearest_nvfp4, ENCODINGS["nvfp4"].divisor)),
}
