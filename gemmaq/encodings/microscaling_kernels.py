"""Compiled loops of the types whose codes are small floating point numbers.

All arrays are C-contiguous, a block is a row. x is finite.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gemmaq.jit import compiled

_ZERO = np.float32(0)
_ONE = np.float32(1)
_SIGN = np.uint32(0x80000000)
_MAGNITUDE = np.uint32(0x7FFFFFFF)
_MANTISSA = np.uint32(0x7FFFFF)
_NEAR = np.uint32(64)  # mantissas so close to a power of two that FP32 rounds their logarithm to that of the power
_BIAS = np.int32(127)
_LARGEST_FP4, _LARGEST_FP8 = np.float32(6), np.float32(448)
_SMALLEST_NORMAL = np.float32(2.0**-6)  # of E4M3
_STEPS = np.float32(512)  # E4M3's subnormal numbers are whole multiples of 1/512
_TOP = np.uint32(126)  # E4M3's code of 448
_LN2 = math.log(2)


@compiled
def _peak(block: Any) -> Any:
    """The largest magnitude in a block, as bits; block holds the bits of f32, u32 [n]."""
    largest = np.uint32(0)
    for j in range(block.size):
        largest = max(largest, np.uint32(block[j] & _MAGNITUDE))
    return np.uint32(largest)


@compiled
def _power(exponent: Any) -> Any:
    """2^exponent, exponent from -127 to 127."""
    bits = np.uint32(exponent + _BIAS) << np.uint32(23) if exponent > -_BIAS else np.uint32(0x400000)
    return np.uint32(bits).view(np.float32)


@compiled
def _log2(bits: Any, exponent: Any) -> Any:
    """The logarithm as FP32 has it, for numbers just below 2^(exponent + 1)."""
    below = 1.0 - np.float64(np.uint32(bits).view(np.float32)) * np.float64(_power(-exponent)) / 2
    return np.float32(exponent + 1 - (below + below * below / 2) / _LN2)  # the series ends: below is 2^-17 at most


@compiled
def _to_e2m1(value: Any) -> Any:
    """The nearest code, u8; half-way between two the smaller magnitude, and 0 without a sign, as ggml has them."""
    size = abs(value)
    low = np.uint8(size > np.float32(0.25)) + np.uint8(size > np.float32(0.75)) + np.uint8(size > np.float32(1.25))
    mid = np.uint8(size > np.float32(1.75)) + np.uint8(size > np.float32(2.5)) + np.uint8(size > np.float32(3.5))
    sign = np.uint8(8) if value < np.float32(-0.25) else np.uint8(0)
    return np.uint8(np.uint8(low + mid) + np.uint8(size > np.float32(5))) | sign


@compiled
def _to_e4m3(value: Any) -> Any:
    """The nearest code, u8, ties to even; numbers above 448 become 448."""
    bits = np.float32(value).view(np.uint32)
    size = np.uint32(bits & _MAGNITUDE)
    odd = (size >> np.uint32(20)) & np.uint32(1)
    normal = np.uint32((np.uint32(size + np.uint32(0x7FFFF) + odd) >> np.uint32(20)) - np.uint32(120 << 3))
    subnormal = np.uint32(np.int32(np.rint(min(abs(value), _SMALLEST_NORMAL) * _STEPS)))
    code = subnormal if abs(value) < _SMALLEST_NORMAL else min(normal, _TOP)
    return np.uint8(code | ((bits & _SIGN) >> np.uint32(24)))


@compiled
def nearest_mxfp4(x: Any, codes: Any, scales: Any) -> None:
    """The rule of ggml (quantize_row_mxfp4_ref) and of the specification: the peak has E2M1's largest exponent.

    Shapes: x f32 [blocks, n], codes u8 alike, scales f32 [blocks].
    """
    bits = x.view(np.uint32)
    for b in range(x.shape[0]):
        peak = _peak(bits[b])
        exponent = np.int32(peak >> np.uint32(23)) - _BIAS
        if (peak & _MANTISSA) > _MANTISSA - _NEAR:
            exponent = np.int32(np.floor(_log2(peak, exponent)))
        exponent = max(np.int32(exponent - 2), -_BIAS)
        scales[b] = _power(exponent)
        inverse = _power(-exponent)
        for j in range(x.shape[1]):
            codes[b, j] = _to_e2m1(x[b, j] * inverse)


@compiled
def nearest_mxfp8(x: Any, codes: Any, scales: Any) -> None:
    """The rule of mlx: the smallest power of two for which no weight is beyond 448; shapes as in `nearest_mxfp4`."""
    bits = x.view(np.uint32)
    for b in range(x.shape[0]):
        peak = np.float32(np.uint32(_peak(bits[b])).view(np.float32) / _LARGEST_FP8).view(np.uint32)
        exponent = np.int32(peak >> np.uint32(23)) - _BIAS + np.int32((peak & _MANTISSA) > np.uint32(0))
        exponent = max(exponent, -_BIAS) if peak != np.uint32(0) else np.int32(0)
        scales[b] = _power(exponent)
        inverse = _power(-exponent)
        for j in range(x.shape[1]):
            codes[b, j] = _to_e4m3(x[b, j] * inverse)


@compiled
def nearest_nvfp4(x: Any, unit: Any, codes: Any, scales: Any) -> None:
    """Scales that make 6 of the peak, rounded to E4M3 numbers divided by `unit`, as mlx and NVIDIA's tools have them.

    Shapes: x f32 [blocks, n], codes u8 alike, scales f32 [blocks].
    """
    bits = x.view(np.uint32)
    levels = np.empty(256, np.float32)
    for code in range(127):
        levels[code] = _from_e4m3(np.uint8(code)) / unit
    for b in range(x.shape[0]):
        scale = levels[_to_e4m3(np.uint32(_peak(bits[b])).view(np.float32) / _LARGEST_FP4 * unit)]
        scales[b] = scale
        divisor = scale if scale > _ZERO else np.float32(np.inf)
        for j in range(x.shape[1]):
            codes[b, j] = _to_e2m1(x[b, j] / divisor)


@compiled
def _from_e4m3(code: Any) -> Any:
    """The number of a code from 0 to 126, f32."""
    mantissa = np.float32(code & np.uint8(7)) / np.float32(8)
    exponent = np.int32(code >> np.uint8(3))
    return _power(exponent - 7) * (_ONE + mantissa) if exponent > 0 else np.float32(2.0**-6) * mantissa


@compiled
def round_to_e4m3(x: Any, scales: Any, codes: Any) -> None:
    """Codes of the nearest numbers for given scales; x f32 [groups, n], scales f32 [groups], codes u8 like x."""
    for b in range(x.shape[0]):
        inverse = _ONE / scales[b] if scales[b] != _ZERO else _ZERO
        for j in range(x.shape[1]):
            codes[b, j] = _to_e4m3(x[b, j] * inverse)


@compiled
def to_e4m3(numbers: Any, out: Any) -> None:
    """F32 [n] -> the nearest E4M3 numbers, u8 [n]."""
    for i in range(numbers.size):
        out[i] = _to_e4m3(numbers[i])
