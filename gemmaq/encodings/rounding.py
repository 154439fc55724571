"""Rounding to BF16 and FP16, to nearest even: of one number inside compiled loops, and of arrays.

Only `f16_bits`, `narrow_f16` and the array functions know FP16's largest number. In other loops scales larger than that
stay finite; writing refuses them later, with the name of the tensor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gemmaq.jit import compiled

if TYPE_CHECKING:
    from gemmaq.encodings import F32

MAGIC = np.float32(12582912.0)
"""1.5 * 2^23: adding and subtracting it rounds a number below 2^22 to an integer, ties to even."""

_SMALLEST_NORMAL = np.float32(2.0**-14)
_LARGEST = np.float32(65504)
_STEPS = np.float32(1 << 24)  # FP16's subnormal numbers are whole multiples of 2^-24
_SMALLEST_NORMAL_BITS = np.uint32(0x38800000)
_LARGE_BITS = np.uint32(0x47800000)  # 2^16
_INF_BITS = np.uint32(0x7F800000)


@compiled
def _carried(bits: Any) -> Any:
    """Bits of an f32, u32, after the carry of rounding to BF16; the low 16 bits are still to be cut off."""
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    return bits + np.uint32(0x7FFF) + odd


@compiled
def round_bf16(value: Any) -> Any:
    """The nearest BF16 number, f32."""
    return np.uint32(_carried(np.float32(value).view(np.uint32)) & np.uint32(0xFFFF0000)).view(np.float32)


@compiled
def round_to_11_bits(value: Any) -> Any:
    """The nearest number with the eleven significant bits of FP16, f32, whatever its exponent."""
    bits = np.float32(value).view(np.uint32)
    odd = (bits >> np.uint32(13)) & np.uint32(1)
    return np.uint32((bits + np.uint32(0xFFF) + odd) & np.uint32(0xFFFFE000)).view(np.float32)


@compiled
def round_f16(value: Any) -> Any:
    """The nearest FP16 number, f32; numbers above FP16's largest keep eleven significant bits."""
    if abs(value) < _SMALLEST_NORMAL:
        return np.float32(np.rint(value * _STEPS)) / _STEPS
    return round_to_11_bits(value)


@compiled
def round_portable(value: Any) -> Any:
    """The nearest number that BF16 and FP16 both hold; one too large for FP16 stays as it is."""
    rounded = round_bf16(value)
    return value if abs(rounded) > _LARGEST else round_f16(rounded)


@compiled
def widen_bf16(source: Any, target: Any) -> None:
    """BF16 bits, u16 [n] -> the bits of the same f32, u32 [n]."""
    for i in range(source.size):
        target[i] = np.uint32(source[i]) << np.uint32(16)


@compiled
def f16_number(bits: Any) -> Any:
    """The f32 of FP16 bits, u16."""
    size = np.uint32(bits & np.uint16(0x7FFF))
    sign = np.uint32(np.uint32(bits & np.uint16(0x8000)) << np.uint32(16))
    normal = np.uint32(np.uint32(size << np.uint32(13)) + np.uint32(0x38000000))
    above = np.uint32(normal + np.uint32(0x38000000)) if size >= np.uint32(0x7C00) else normal
    subnormal = np.float32(np.float32(np.int32(size)) / _STEPS).view(np.uint32)
    return np.uint32((subnormal if size < np.uint32(0x0400) else above) | sign).view(np.float32)


@compiled
def widen_f16(source: Any, target: Any) -> None:
    """FP16 bits, u16 [n] -> f32 [n]."""
    for i in range(source.size):
        target[i] = f16_number(source[i])


@compiled
def bf16_bits(value: Any) -> Any:
    """The bits of the nearest BF16 number of an f32, u16."""
    return np.uint16(_carried(np.float32(value).view(np.uint32)) >> np.uint32(16))


@compiled
def narrow_bf16(source: Any, target: Any) -> None:
    """F32 bits, u32 [n] -> BF16 bits, u16 [n]."""
    for i in range(source.size):
        target[i] = np.uint16(_carried(source[i]) >> np.uint32(16))


@compiled
def f16_bits(value: Any) -> Any:
    """The bits of the nearest FP16 number of an f32, u16; too large becomes infinite."""
    bits = np.float32(value).view(np.uint32)
    size = bits & np.uint32(0x7FFFFFFF)
    sign = (bits >> np.uint32(16)) & np.uint32(0x8000)
    odd = (size >> np.uint32(13)) & np.uint32(1)
    normal = (size - np.uint32(0x38000000) + np.uint32(0xFFF) + odd) >> np.uint32(13)
    subnormal = np.uint32(np.int32(abs(np.float32(value)) * _STEPS + MAGIC - MAGIC))
    small = subnormal if size < _SMALLEST_NORMAL_BITS else normal
    large = np.uint32(0x7E00) if size > _INF_BITS else np.uint32(0x7C00)
    return np.uint16(sign | (small if size < _LARGE_BITS else large))


@compiled
def narrow_f16(source: Any, target: Any) -> None:
    """F32 [n] -> FP16 bits, u16 [n]; too large becomes infinite."""
    for i in range(source.size):
        target[i] = f16_bits(source[i])


def as_bf16(numbers: F32) -> F32:
    """Numbers as BF16 holds them, f32 of the same shape."""
    halves, out = np.empty(numbers.size, np.uint16), np.empty(numbers.size, np.uint32)
    narrow_bf16(np.ascontiguousarray(numbers).reshape(-1).view(np.uint32), halves)
    widen_bf16(halves, out)
    return out.view(np.float32).reshape(numbers.shape)


def as_f16(numbers: F32) -> F32:
    """Numbers as FP16 holds them, f32 of the same shape; too large becomes infinite."""
    halves = np.empty(numbers.size, np.uint16)
    narrow_f16(np.ascontiguousarray(numbers).reshape(-1), halves)
    return halves.view(np.float16).astype(np.float32).reshape(numbers.shape)


def portable(numbers: F32) -> F32:
    """The nearest numbers that BF16 and FP16 both hold, f32 of the same shape; too large for FP16 stays as it is."""
    rounded = as_f16(as_bf16(numbers))  # only among FP16's subnormal numbers a second rounding
    return np.where(np.isfinite(rounded), rounded, numbers)
