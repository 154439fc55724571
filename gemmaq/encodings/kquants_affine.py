"""The ggml types with super-blocks of 256 weights, eight groups of 32 with a minimum each: Q4_K and Q5_K.

The search runs the reference's operations (ggml-quants.c, make_qkx2_quants) for many groups side by side, a lane each:
every group sees the same f32 operations in the same order, so the bytes agree, and the lanes vectorise.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from gemmaq.encodings import Codec, Quantized
from gemmaq.encodings.kernels import MAGIC, compiled
from gemmaq.encodings.legacy import half_bytes, halves

if TYPE_CHECKING:
    from gemmaq.encodings import F32, U8

SUPER = 256
GROUP = 32
GROUPS = SUPER // GROUP

LANES = 64
"""Groups searched together: enough to vectorise, few enough for the first-level cache. A constant, like the offsets
below: only so does the compiler see that the parts of one array do not overlap."""
_UNROLLED = 4  # weights between two visits to the sums in memory
_ORIGIN, _INVERSE, _SUM_L, _SUM_L2, _SUM_XL, _SCALE, _MINIMUM, _ERROR = (k * LANES for k in range(8))

_ZERO = np.float32(0)
_ONE = np.float32(1)
_TOP_SCALE = np.float32(63)  # six bits
_NO_LEVEL = np.int32(0)
_MANTISSA = np.int32(0x007FFFFF)
_MIDDLE = np.int32(0x00400000)


@compiled
def _nearest_int(value: Any) -> Any:
    """The nearest integer, i32, ties to even; ggml's nearest_int also for what is infinite, too large or no number."""
    return (np.float32(value + MAGIC).view(np.int32) & _MANTISSA) - _MIDDLE


@compiled
def _nearest_level(value: Any, top: Any) -> Any:
    """The code of a scaled weight, i32 in 0..top."""
    return max(_NO_LEVEL, min(top, _nearest_int(value)))


@compiled
def _weigh(x: Any, weights: Any, lows: Any, highs: Any, sums_w: Any, sums_x: Any) -> None:
    """What a weight's error counts, |x| + rms of its group, with the sums and the range (0 included) of every group.

    Shapes: x and weights f32 [32 * LANES], a group a lane; all others f32 [LANES].
    """
    for g in range(LANES):
        squares = _ZERO
        for i in range(g, GROUP * LANES, LANES):
            squares += x[i] * x[i]
        rms = np.sqrt(squares / np.float32(GROUP))
        low, high = x[g], x[g]
        sum_w, sum_x = _ZERO, _ZERO
        for i in range(g, GROUP * LANES, LANES):
            weight = rms + abs(x[i])
            weights[i] = weight
            low = x[i] if x[i] < low else low
            high = x[i] if x[i] > high else high
            sum_w += weight
            sum_x += weight * x[i]
        lows[g] = _ZERO if low > _ZERO else low
        highs[g], sums_w[g], sums_x[g] = high, sum_w, sum_x


@compiled
def _fit(x: Any, weights: Any, top: Any, levels: Any, state: Any) -> None:
    """Codes for the origin and inverse scale of every group, f32, and the sums of a regression on them."""
    for start in range(0, GROUP * LANES, _UNROLLED * LANES):
        for g in range(LANES):
            origin, inverse = state[_ORIGIN + g], state[_INVERSE + g]
            sum_l, sum_l2, sum_xl = state[_SUM_L + g], state[_SUM_L2 + g], state[_SUM_XL + g]
            for k in range(_UNROLLED):
                i = start + k * LANES + g
                level = np.float32(_nearest_level(inverse * (x[i] - origin), top))
                levels[i] = level
                weighted = weights[i] * level
                sum_l += weighted
                sum_l2 += weighted * level
                sum_xl += weighted * x[i]
            state[_SUM_L + g], state[_SUM_L2 + g], state[_SUM_XL + g] = sum_l, sum_l2, sum_xl


@compiled
def _add_errors(x: Any, weights: Any, levels: Any, state: Any) -> None:
    """Weighted squared distance of every group from what its codes, scale and minimum stand for."""
    for start in range(0, GROUP * LANES, _UNROLLED * LANES):
        for g in range(LANES):
            scale, minimum, error = state[_SCALE + g], state[_MINIMUM + g], state[_ERROR + g]
            for k in range(_UNROLLED):
                i = start + k * LANES + g
                distance = scale * levels[i] + minimum - x[i]
                error += weights[i] * (distance * distance)
            state[_ERROR + g] = error


@compiled
def _search(x: Any, weights: Any, levels: Any, state: Any, top: Any, first: Any, steps: Any, found: Any) -> None:
    """Scale and minimum of every group: weighted regression on the codes of candidate scales, the best of all.

    The minimum of the best so far is the origin of the candidates that follow, as in the reference.

    Args:
        x: f32 [32 * LANES], a group a lane.
        weights: room, like x.
        levels: room, like x.
        state: room, f32 [8 * LANES].
        top: largest code, i32.
        first: what the first candidate adds to `top` steps over the range, f32; the next add 0.1 more each.
        steps: candidates less one.
        found: f32 [4, LANES]: to receive scales, minima, and the inverse scales and origins of the codes they rest on.
    """
    scales, minima, inverses, origins = found[0], found[1], found[2], found[3]
    highs, sums_w, sums_x = np.empty(LANES, np.float32), np.empty(LANES, np.float32), np.empty(LANES, np.float32)
    best = np.empty(LANES, np.float32)
    _weigh(x, weights, minima, highs, sums_w, sums_x)
    levels_top = np.float32(top)
    for g in range(LANES):
        inverses[g] = levels_top / (highs[g] - minima[g])
        scales[g] = _ONE / inverses[g]
        origins[g] = minima[g]
        state[_INVERSE + g], state[_ORIGIN + g] = inverses[g], minima[g]
        state[_SCALE + g], state[_MINIMUM + g] = scales[g], minima[g]
        state[_ERROR + g] = _ZERO
    _fit(x, weights, top, levels, state)
    _add_errors(x, weights, levels, state)
    for g in range(LANES):
        best[g] = state[_ERROR + g]
    for step in range(steps + 1):
        reach = first + np.float32(0.1) * np.float32(step) + levels_top
        for g in range(LANES):
            state[_INVERSE + g], state[_ORIGIN + g] = reach / (highs[g] - minima[g]), minima[g]
            state[_SUM_L + g], state[_SUM_L2 + g], state[_SUM_XL + g], state[_ERROR + g] = _ZERO, _ZERO, _ZERO, _ZERO
        _fit(x, weights, top, levels, state)
        _regress(sums_w, sums_x, state)
        _add_errors(x, weights, levels, state)
        for g in range(LANES):
            better = np.int32(state[_SUM_L + g] > _ZERO) & np.int32(state[_ERROR + g] < best[g])
            best[g] = state[_ERROR + g] if better != 0 else best[g]
            scales[g] = state[_SCALE + g] if better != 0 else scales[g]
            minima[g] = state[_MINIMUM + g] if better != 0 else minima[g]
            inverses[g] = state[_INVERSE + g] if better != 0 else inverses[g]
            origins[g] = state[_ORIGIN + g] if better != 0 else origins[g]


@compiled
def _regress(sums_w: Any, sums_x: Any, state: Any) -> None:
    """Scale and minimum (at most 0) that explain the codes best; the determinant replaces the sum of codes."""
    for g in range(LANES):
        sum_w, sum_x = sums_w[g], sums_x[g]
        sum_l, sum_l2, sum_xl = state[_SUM_L + g], state[_SUM_L2 + g], state[_SUM_XL + g]
        determinant = sum_w * sum_l2 - sum_l * sum_l
        scale = (sum_w * sum_xl - sum_x * sum_l) / determinant
        minimum = (sum_l2 * sum_x - sum_l * sum_xl) / determinant
        above = minimum > _ZERO
        through_zero = sum_xl / sum_l2
        state[_SCALE + g] = through_zero if above else scale
        state[_MINIMUM + g] = _ZERO if above else minimum
        state[_SUM_L + g] = determinant


@compiled
def _search_all(x: Any, top: Any, first: Any, steps: Any, found: Any) -> None:
    """First third: `_search` for all groups, x f32 [groups, 32], found f32 [4, groups]."""
    lanes, weights = np.zeros(GROUP * LANES, np.float32), np.empty(GROUP * LANES, np.float32)
    levels, state = np.empty(GROUP * LANES, np.float32), np.zeros(8 * LANES, np.float32)
    part = np.empty((4, LANES), np.float32)
    for start in range(0, x.shape[0], LANES):
        count = min(LANES, x.shape[0] - start)
        for g in range(count):
            for i in range(GROUP):
                lanes[i * LANES + g] = x[start + g, i]
        _search(lanes, weights, levels, state, top, first, steps, part)
        for k in range(4):  # assigning slices would take the compiler seconds
            for g in range(count):
                found[k, start + g] = part[k, g]


@compiled
def _round_scales(values: Any, supers: Any, rounded: Any) -> None:
    """Second third: scales, or negated minima, as six-bit multiples of a super-scale a block.

    Shapes: values f32 [blocks, 8], supers f32 [blocks], rounded f32 [blocks, 8].
    """
    for b in range(values.shape[0]):
        largest = _ZERO
        for g in range(GROUPS):
            largest = values[b, g] if values[b, g] > largest else largest
        supers[b] = largest / _TOP_SCALE
        inverse = _TOP_SCALE / largest if largest > _ZERO else _ZERO
        for g in range(GROUPS):
            whole = _nearest_int(inverse * values[b, g]) & np.int32(255)  # the reference has it in a byte
            rounded[b, g] = np.float32(min(whole, np.int32(63)))


@compiled
def _recode(x: Any, top: Any, found: Any, q: Any, codes: Any) -> None:
    """Last third: codes for the scales and minima as they are stored; those of the search where the scale became 0.

    Shapes: x f32 [groups, 32], codes u8 alike, found f32 [4, groups] as of `_search`; q is the tuple of scales and
    minima, f32 [blocks, 8], and of their super-scales as FP16 holds them, f32 [blocks].
    """
    scales, minima, supers, super_minima = q
    for g in range(x.shape[0]):
        block, at = g // GROUPS, g % GROUPS
        scale = supers[block] * scales[block, at]
        minimum = super_minima[block] * minima[block, at]
        if scale == _ZERO:
            inverse, origin = found[2, g], found[3, g]
            for i in range(x.shape[1]):
                codes[g, i] = np.uint8(_nearest_level(inverse * (x[g, i] - origin), top))
        else:
            for i in range(x.shape[1]):
                codes[g, i] = np.uint8(_nearest_level((x[g, i] - minimum) / scale, top))


def _nearest(bits: int, first: float, steps: int, x: F32) -> Quantized:
    groups, blocks = x.reshape(-1, GROUP), x.size // SUPER
    top = np.int32((1 << bits) - 1)
    found = np.empty((4, len(groups)), np.float32)
    _search_all(groups, top, np.float32(first), steps, found)
    scales, minima = np.empty((blocks, GROUPS), np.float32), np.empty((blocks, GROUPS), np.float32)
    supers, super_minima = np.empty(blocks, np.float32), np.empty(blocks, np.float32)
    _round_scales(found[0].reshape(-1, GROUPS), supers, scales)
    _round_scales(-found[1].reshape(-1, GROUPS), super_minima, minima)
    parts = (scales, minima, halves(half_bytes(supers)), -halves(half_bytes(super_minima)))
    codes = np.empty(groups.shape, np.uint8)
    _recode(groups, top, found, parts, codes)
    return _quantized(len(x), codes, *parts)


def _quantized(rows: int, codes: U8, scales: F32, minima: F32, supers: F32, super_minima: F32) -> Quantized:
    parts = (scales, minima, supers, super_minima)
    return Quantized(codes.reshape(rows, -1), *(part.reshape(rows, -1) for part in parts))


@compiled
def _pack_blocks(codes: Any, scales: Any, minima: Any, bits: Any, out: Any) -> None:
    """Everything of a block behind its two super-scales; see `_unpack_blocks`."""
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
