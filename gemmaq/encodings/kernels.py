"""Compiled loops over blocks of 32 weights.

Every quantizing loop does the f32 operations of ggml's reference quantizer (ggml-quants.c, `quantize_row_*_ref`)
in the same order, so that the bytes agree. All arrays are C-contiguous, a block is a row.

Loops over a block end at the length of the array, not at a constant: LLVM unrolls loops with few rounds before it
vectorises, which takes two to five times as long. Integers are cast back to their width after every operation, because
numba computes in 64 bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gemmaq.jit import compiled, compiled_with

BLOCK = 32
_ZERO = np.float32(0)
_ONE = np.float32(1)
_HALF = np.float32(0.5)
_INF = np.float32(np.inf)
_MAGNITUDE = np.int32(0x7FFFFFFF)
_LOWEST = np.int32(-(2**31))


def _reduction(function: Any) -> Any:
    """`compiled`, with the freedom that min and max of finite numbers need to be vectorised."""
    return compiled_with(fastmath={"nnan", "nsz"})(function)


@compiled
def largest_magnitude(bits: Any, mask: Any) -> Any:
    """The largest magnitude among floats, as bits without sign; infinity and NaN are larger than any number.

    Args:
        bits: of f32, u32 [n], or of BF16, u16 [n].
        mask: all bits but the sign, of the same type.
    """
    kind = bits.dtype.type
    largest = kind(0)
    for i in range(bits.size):
        largest = max(largest, kind(bits[i] & mask))
    return largest


@_reduction
def ranges(x: Any, lows: Any, highs: Any) -> None:
    """Smallest and largest value of every group, x f32 [groups, n], n a multiple of 32.

    It works in 8 lanes; a plain loop is half as fast.
    """
    low = np.empty(8, np.float32)
    high = np.empty(8, np.float32)
    for b in range(x.shape[0]):
        for j in range(8):
            first, second, third, fourth = x[b, j], x[b, j + 8], x[b, j + 16], x[b, j + 24]
            low[j] = min(min(first, second), min(third, fourth))
            high[j] = max(max(first, second), max(third, fourth))
        for start in range(32, x.shape[1], 32):
            for j in range(start, start + 8):
                first, second, third, fourth = x[b, j], x[b, j + 8], x[b, j + 16], x[b, j + 24]
                low[j - start] = min(low[j - start], min(min(first, second), min(third, fourth)))
                high[j - start] = max(high[j - start], max(max(first, second), max(third, fourth)))
        lows[b] = min(min(min(low[0], low[1]), min(low[2], low[3])), min(min(low[4], low[5]), min(low[6], low[7])))
        highs[b] = max(
            max(max(high[0], high[1]), max(high[2], high[3])), max(max(high[4], high[5]), max(high[6], high[7]))
        )


@compiled
def _as_float(ordered: Any) -> Any:
    """The f32 of an integer of `extremes`."""
    return np.int32(ordered ^ np.int32(np.int32(ordered >> np.int32(31)) & _MAGNITUDE)).view(np.float32)


@compiled
def extremes(x: Any, lows: Any, highs: Any) -> None:
    """As `ranges`, in a third of its time, for finite x; -0 is smaller than +0.

    Integers made of the bits are in the order of the numbers, and LLVM vectorises their min and max.
    """
    bits = x.view(np.int32)
    for b in range(bits.shape[0]):
        low, high = _MAGNITUDE, _LOWEST
        for j in range(bits.shape[1]):
            ordered = np.int32(bits[b, j] ^ np.int32(np.int32(bits[b, j] >> np.int32(31)) & _MAGNITUDE))
            low = min(low, ordered)
            high = max(high, ordered)
        lows[b], highs[b] = _as_float(low), _as_float(high)


@compiled
def _first_extreme(row: Any, size: Any) -> Any:
    """The first of the values whose magnitude is `size`; +0 for a block of zeros, so that d is -0 as in ggml."""
    for j in range(BLOCK):
        if abs(row[j]) == size and size > _ZERO:
            return row[j]
    return _ZERO


@compiled
def _inverse(d: Any) -> Any:
    """1/d, or 0 if d is 0 or so small that 1/d is infinite: all codes are then those of 0, as in ggml."""
    inverse = _ONE / d if d != _ZERO else _ZERO
    return _ZERO if abs(inverse) == _INF else inverse


@compiled
def nearest_signed(x: Any, half: Any, codes: Any, scales: Any) -> None:
    """Q4_0 (half 8) and Q5_0 (half 16): the value of largest magnitude becomes code 0, that is -half.

    Shapes: x f32 [blocks, 32], codes u8 [blocks, 32], scales f32 [blocks].
    """
    lows = np.empty(x.shape[0], np.float32)
    highs = np.empty(x.shape[0], np.float32)
    extremes(x, lows, highs)
    for b in range(x.shape[0]):
        scales[b] = highs[b] if highs[b] > -lows[b] else lows[b]
    for b in range(x.shape[0]):
        if highs[b] == -lows[b]:
            scales[b] = _first_extreme(x[b], highs[b])
    top = np.int32(half + half) - np.int32(1)
    inverses, biases = lows, highs
    for b in range(x.shape[0]):
        d = scales[b] / -half
        scales[b] = d
        inverses[b] = _inverse(d)
        # where 1/d is infinite all codes are 0: what converting infinity to an integer gives on x86
        biases[b] = _ZERO if inverses[b] == _ZERO and d != _ZERO else half + _HALF
    for b in range(x.shape[0]):
        inverse, bias = inverses[b], biases[b]
        for j in range(x.shape[1]):
            codes[b, j] = np.uint8(min(top, np.int32(x[b, j] * inverse + bias)))


@compiled
def nearest_affine(x: Any, levels: Any, codes: Any, scales: Any, minima: Any) -> None:
    """Q4_1 (15 levels) and Q5_1 (31 levels): scale and minimum from the range of the block.

    Shapes: x f32 [blocks, 32], codes u8 [blocks, 32], scales and minima f32 [blocks].
    """
    highs = np.empty(x.shape[0], np.float32)
    ranges(x, minima, highs)
    top = np.int32(levels)
    for b in range(x.shape[0]):
        low = minima[b]
        d = (highs[b] - low) / levels
        scales[b] = d
        inverse = _inverse(d)
        if d == _INF:
            codes[b] = 0
            continue
        for j in range(x.shape[1]):
            codes[b, j] = np.uint8(min(top, np.int32((x[b, j] - low) * inverse + _HALF)))


@compiled
def nearest_absmax(x: Any, codes: Any, scales: Any) -> None:
    """Q8_0: scale absmax/127, rounding half away from zero; codes are stored with 128 added.

    Shapes: x f32 [blocks, 32], codes u8 [blocks, 32], scales f32 [blocks].
    """
    bits = x.view(np.int32)
    for b in range(x.shape[0]):
        largest = np.int32(0)
        for j in range(x.shape[1]):
            largest = max(largest, np.int32(bits[b, j] & _MAGNITUDE))
        scales[b] = _as_float(largest) / np.float32(127)
    for b in range(x.shape[0]):
        inverse = _inverse(scales[b])
        for j in range(x.shape[1]):
            value = x[b, j] * inverse
            whole = np.int32(value)
            rest = value - np.float32(whole)
            up = np.int32(1) if rest >= _HALF else np.int32(0)
            down = np.int32(1) if rest <= -_HALF else np.int32(0)
            codes[b, j] = np.uint8(np.int32(np.int32(whole + up) - down) + np.int32(128))


@compiled
def round_to_scales(x: Any, scales: Any, chosen: Any, zero: Any, codes: Any) -> None:
    """Nearest codes, 0 to 2 * zero - 1, for given scales, in the blocks listed.

    Shapes: x f32 [blocks, 32], scales f32 [blocks], chosen i64 [n], codes u8 [blocks, 32].
    """
    top = np.float32(2 * zero - 1)
    bias = np.float32(zero)
    for k in range(chosen.size):
        b = chosen[k]
        inverse = _inverse(scales[b])
        for j in range(x.shape[1]):
            level = np.float32(np.rint(x[b, j] * inverse)) + bias
            codes[b, j] = np.uint8(np.int32(min(top, max(_ZERO, level))))


@compiled
def round_to_ranges(x: Any, scales: Any, minima: Any, top: Any, codes: Any) -> None:
    """Nearest codes, 0 to top, for given scales and minima of every block; shapes as in `nearest_affine`."""
    for b in range(x.shape[0]):
        inverse = _inverse(scales[b])
        for j in range(x.shape[1]):
            level = np.float32(np.rint((x[b, j] - minima[b]) * inverse))
            codes[b, j] = np.uint8(np.int32(min(top, max(_ZERO, level))))


def levels_of(codebook: tuple[float, ...]) -> tuple[Any, Any]:
    """The levels of a codebook, f32 [n], and the numbers half-way between them, f32 [n - 1], where codes change."""
    levels = np.array(codebook, np.float32)
    return levels, (levels[1:] + levels[:-1]) / np.float32(2)


@compiled
def round_to_levels(x: Any, scales: Any, middles: Any, codes: Any) -> None:
    """Codes of the nearest levels of a codebook for given scales; half-way between two it is the upper one.

    Shapes: x f32 [blocks, n], scales f32 [blocks], middles f32 [levels - 1] as of `levels_of`, codes u8 like x.
    """
    for b in range(x.shape[0]):
        inverse = _ONE / scales[b] if scales[b] != _ZERO else _ZERO
        for j in range(x.shape[1]):
            level, code = x[b, j] * inverse, np.uint8(0)
            for k in range(middles.size):
                code += np.uint8(not level < middles[k])
            codes[b, j] = code


@compiled
def dequantize(codes: Any, scales: Any, offset: Any, out: Any) -> None:
    """F32 out [groups, n] = scales [groups] * (codes [groups, n] - offset)."""
    for b in range(codes.shape[0]):
        for j in range(codes.shape[1]):
            out[b, j] = scales[b] * (np.float32(codes[b, j]) - offset)


@compiled
def dequantize_affine(codes: Any, scales: Any, minima: Any, out: Any) -> None:
    """F32 out [groups, n] = scales [groups] * codes [groups, n] + minima [groups]."""
    for b in range(codes.shape[0]):
        for j in range(codes.shape[1]):
            out[b, j] = scales[b] * np.float32(codes[b, j]) + minima[b]


@compiled
def dequantize_codebook(codes: Any, scales: Any, levels: Any, out: Any) -> None:
    """F32 out [groups, n] = scales [groups] * levels [codes [groups, n]]."""
    for b in range(codes.shape[0]):
        for j in range(codes.shape[1]):
            out[b, j] = scales[b] * levels[codes[b, j]]
