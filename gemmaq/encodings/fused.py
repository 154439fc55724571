"""From BF16 to the stored bytes of a type in one loop: the bytes of `pack(nearest(x))`, in a third of the time.

The f32 operations are those of `kernels` and `affine_kernels`, in their order. Blocks are taken a few at a time: what
is done once a block is then a loop of its own, which is vectorised.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from gemmaq.encodings.affine_kernels import scale_and_minimum
from gemmaq.encodings.block_vectors import (
    BLOCK,
    at_least,
    at_most,
    doubles,
    floats,
    largest,
    largest_magnitude,
    load_bits,
    load_bytes,
    load_nibbles,
    numbers,
    reached,
    smallest,
    store_bytes,
    store_nibbles,
    store_pairs,
    to_even,
    total,
    truncated,
)
from gemmaq.encodings.kernels import _inverse
from gemmaq.encodings.rounding import bf16_bits, f16_bits, f16_number
from gemmaq.jit import compiled

if TYPE_CHECKING:
    from gemmaq.encodings import U8, U16

_CHUNK = 64
"""Blocks, or groups, taken at a time."""
_ZERO = np.float32(0)
_HALF = np.float32(0.5)
_MINUS = np.float32(-1)
_NOTHING = np.float64(0)


def q4_0(bits: U16) -> tuple[U8]:
    """BF16 bits u16 [rows, columns], finite -> Q4_0 blocks u8 [rows, row bytes]."""
    out = np.empty((len(bits), bits.shape[1] // BLOCK * 18), np.uint8)
    _q4_0(bits.reshape(-1), out.reshape(-1), out.reshape(-1).view(np.uint16))
    return (out,)


@compiled
def _first_extreme(bits: Any, start: Any, size: Any) -> Any:
    """The first number of a block whose magnitude is `size`; +0 for a block of zeros, so that d is -0 as in ggml."""
    for i in range(start, start + BLOCK):
        number = np.uint32(np.uint32(bits[i]) << np.uint32(16)).view(np.float32)
        if abs(number) == size and size > _ZERO:
            return number
    return _ZERO


@compiled
def _q4_0(bits: Any, out: Any, halves: Any) -> None:
    """Bits u16 [n], and the same bytes twice: u8 [n / 32 * 18], u16 [n / 32 * 9]."""
    lows, highs = np.empty(_CHUNK, np.float32), np.empty(_CHUNK, np.float32)
    ends, heads = np.empty(_CHUNK, np.float32), np.empty(_CHUNK, np.uint16)
    half, top = np.float32(8), np.int32(15)
    for first in range(0, bits.size // BLOCK, _CHUNK):
        count = min(_CHUNK, bits.size // BLOCK - first)
        for k in range(count):
            block = load_bits(bits, (first + k) * BLOCK)
            lows[k], highs[k] = smallest(block), largest(block)
        for k in range(_CHUNK):
            ends[k] = highs[k] if highs[k] > -lows[k] else lows[k]
        for k in range(count):
            if highs[k] == -lows[k]:
                ends[k] = _first_extreme(bits, (first + k) * BLOCK, highs[k])
        inverses, biases = lows, highs
        for k in range(_CHUNK):
            d = ends[k] / -half
            inverse = _inverse(d)
            inverses[k] = inverse
            # where 1/d is infinite all codes are 0: what converting infinity to an integer gives on x86
            biases[k] = _ZERO if inverse == _ZERO and d != _ZERO else half + _HALF
            heads[k] = f16_bits(d)
        for k in range(count):
            block = numbers(load_bits(bits, (first + k) * BLOCK))
            halves[(first + k) * 9] = heads[k]
            store_nibbles(out, (first + k) * 18 + 2, at_most(truncated(block * inverses[k] + biases[k]), top))


def q8_0(bits: U16) -> tuple[U8]:
    """BF16 bits u16 [rows, columns], finite -> Q8_0 blocks u8 [rows, row bytes]."""
    out = np.empty((len(bits), bits.shape[1] // BLOCK * 34), np.uint8)
    _q8_0(bits.reshape(-1), out.reshape(-1), out.reshape(-1).view(np.uint16))
    return (out,)


@compiled
def _q8_0(bits: Any, out: Any, halves: Any) -> None:
    """Bits u16 [n], and the same bytes twice: u8 [n / 32 * 34], u16 [n / 32 * 17]."""
    scales, heads = np.empty(_CHUNK, np.float32), np.empty(_CHUNK, np.uint16)
    for first in range(0, bits.size // BLOCK, _CHUNK):
        count = min(_CHUNK, bits.size // BLOCK - first)
        for k in range(count):
            scales[k] = largest_magnitude(load_bits(bits, (first + k) * BLOCK))
        inverses = scales
        for k in range(_CHUNK):
            scale = scales[k] / np.float32(127)
            heads[k] = f16_bits(scale)
            inverses[k] = _inverse(scale)
        for k in range(count):
            value = numbers(load_bits(bits, (first + k) * BLOCK)) * inverses[k]
            whole = truncated(value)
            rest = value - floats(whole)
            halves[(first + k) * 17] = heads[k]
            code = whole + reached(rest, _HALF) - reached(rest * _MINUS, _HALF)
            store_bytes(out, (first + k) * 34 + 2, code)


def errors(bits: U16, raw: U8) -> tuple[float, float]:
    """Squared errors of Q4_0 or Q8_0 blocks; see `Codec.errors`. Infinite where a scale is too large for FP16."""
    flat = raw.reshape(-1)
    size = flat.size // (bits.size // BLOCK)
    sums = _errors(bits.reshape(-1), flat, flat.view(np.uint16), size)
    error, square = (math.inf if math.isnan(one) else one for one in sums)
    return error, square


@compiled
def _errors(bits: Any, raw: Any, halves: Any, size: Any) -> Any:
    """Bits u16 [n], and the bytes of blocks twice: u8 [n / 32 * size], u16 of half as many.

    The size of a block is 18 for Q4_0, 34 for Q8_0.
    """
    error = doubles(numbers(load_bits(bits, 0))) * _NOTHING
    square = error
    for b in range(bits.size // BLOCK):
        at = b * size + 2
        codes = floats(load_nibbles(raw, at)) - np.float32(8) if size == 18 else floats(load_bytes(raw, at))
        wanted = numbers(load_bits(bits, b * BLOCK))
        distance = doubles(codes * f16_number(halves[b * size // 2]) - wanted)
        error = error + distance * distance
        square = square + doubles(wanted) * doubles(wanted)
    return total(error), total(square)


def affine4(group: int, bits: U16) -> tuple[U8, U8, U8]:
    """BF16 bits u16 [rows, columns], finite -> MLX's codes, BF16 scales and BF16 biases, u8 [rows, row bytes] each.

    `group` weights, a multiple of 32, have a scale.
    """
    rows, groups = len(bits), bits.shape[1] // group
    codes = np.empty((rows, bits.shape[1] // 2), np.uint8)
    scales, biases = np.empty((rows, groups), np.uint16), np.empty((rows, groups), np.uint16)
    _affine4(bits.reshape(-1), group // BLOCK, codes.reshape(-1), scales.reshape(-1), biases.reshape(-1))
    return codes, scales.view(np.uint8), biases.view(np.uint8)


@compiled
def _affine4(bits: Any, parts: Any, codes: Any, scales: Any, biases: Any) -> None:
    """Bits u16 [n]; groups of so many parts of 32 weights; codes u8 [n / 2], scales and biases u16 [groups]."""
    low, high = np.empty(_CHUNK, np.float32), np.empty(_CHUNK, np.float32)
    levels, top = np.float32(15), np.int32(15)
    group = parts * BLOCK
    for first in range(0, bits.size // group, _CHUNK):
        count = min(_CHUNK, bits.size // group - first)
        for k in range(count):
            start = (first + k) * group
            block = load_bits(bits, start)
            low[k], high[k] = smallest(block), largest(block)
            for part in range(1, parts):
                block = load_bits(bits, start + part * BLOCK)
                low[k], high[k] = min(low[k], smallest(block)), max(high[k], largest(block))
        for k in range(_CHUNK):
            high[k], low[k] = scale_and_minimum(low[k], high[k], levels)
        for k in range(count):
            scales[first + k], biases[first + k] = bf16_bits(high[k]), bf16_bits(low[k])
            for start in range((first + k) * group, (first + k + 1) * group, BLOCK):
                level = to_even((numbers(load_bits(bits, start)) - low[k]) / high[k])
                store_pairs(codes, start // 2, at_most(at_least(truncated(level), np.int32(0)), top))
