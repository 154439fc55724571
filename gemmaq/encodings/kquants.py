"""The ggml type with super-blocks of 256 weights around zero, sixteen groups of 16: Q6_K.

The search runs the reference's operations for many groups of 16 weights side by side, a lane each:
every group sees the same operations in the same order, so the bytes agree, and the lanes vectorise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gemmaq.encodings import Codec, Quantized
from gemmaq.encodings.kernels import MAGIC, compiled
from gemmaq.encodings.legacy import half_bytes, halves

if TYPE_CHECKING:
    from gemmaq.encodings import F32, U8

SUPER = 256
GROUP = 16
GROUPS = SUPER // GROUP
_EPSILON = np.float32(1e-15)  # ggml's GROUP_MAX_EPS: below it a group counts as zero

_ZERO = np.float32(0)
_ONE = np.float32(1)


@compiled
def _nearest_int(value: Any) -> Any:
    """The f32 nearest integer, ties to even: ggml's nearest_int for the small values that occur here."""
    return (value + MAGIC) - MAGIC


@compiled
def _nearest_level(value: Any) -> Any:
    """The six-bit level of a scaled weight: f32 in -32..31."""
    level = _nearest_int(value)
    level = level if level > np.float32(-32) else np.float32(-32)
    return level if level < np.float32(31) else np.float32(31)


@compiled
def _levels(x: Any, inverse: Any, levels: Any) -> None:
    for g in range(x.size):
        levels[g] = _nearest_level(inverse[g] * x[g])


@compiled
def _accumulate(square: Any, cube: Any, levels: Any, sum_lx: Any, sum_l2: Any) -> None:
    """Add one weight of every group to its sums, in the reference's order of multiplications."""
    for g in range(levels.size):
        sum_lx[g] += cube[g] * levels[g]
    for g in range(levels.size):
        sum_l2[g] += square[g] * levels[g] * levels[g]


@compiled
def _candidates(reach: Any, extreme: Any, inverse: Any) -> None:
    """The inverse scales that put the extreme of every group at -reach."""
    for g in range(extreme.size):
        candidate = -reach / extreme[g]
        inverse[g] = candidate if abs(extreme[g]) >= _EPSILON else _ZERO


@compiled
def _compare(sum_lx: Any, sum_l2: Any, best: Any, better: Any) -> int:
    """Mark the groups (i32, 1 or 0) whose candidate explains more than the best so far; how many they are."""
    for g in range(best.size):
        gain = sum_lx[g] * sum_lx[g] > best[g] * sum_l2[g]
        better[g] = np.int32(gain) & np.int32(sum_l2[g] > _ZERO)
    count = 0
    for g in range(best.size):
        count += better[g]
    return count


@compiled
def _take(better: Any, new: Any, old: Any) -> None:
    """Replace old by new where better."""
    for g in range(better.size):
        old[g] = new[g] if better[g] != 0 else old[g]


@compiled
def _search_scales(x: Any, scales: Any, codes: Any) -> None:
    """Least-squares scale of every group by the reference's search, weights x^2, 19 candidates.

    Shapes: x f32 [16 weights, lanes] (a group is a column), scales f32 [lanes], codes f32 like x, in -32..31.
    """
    lanes = x.shape[1]
    extreme = np.zeros(lanes, np.float32)
    inverse = np.empty(lanes, np.float32)
    ratio = np.empty(lanes, np.float32)
    best = np.empty(lanes, np.float32)
    best_inverse = np.empty(lanes, np.float32)
    better = np.ones(lanes, np.int32)
    levels = np.empty(lanes, np.float32)
    square = x * x
    cube = square * x
    for i in range(GROUP):
        for g in range(lanes):
            extreme[g] = x[i, g] if abs(x[i, g]) > abs(extreme[g]) else extreme[g]
    for step in range(-10, 10):  # -10 stands for the first guess, 0 is skipped: it is the same
        if step == 0:
            continue
        reach = np.float32(32) + (np.float32(0.1) * np.float32(step) if step > -10 else _ZERO)
        _candidates(reach, extreme, inverse)
        sum_lx = np.zeros(lanes, np.float32)
        sum_l2 = np.zeros(lanes, np.float32)
        for i in range(GROUP):
            _levels(x[i], inverse, levels)
            _accumulate(square[i], cube[i], levels, sum_lx, sum_l2)
        if step > -10 and _compare(sum_lx, sum_l2, best, better) == 0:
            continue
        for g in range(lanes):
            ratio[g] = sum_lx[g] / sum_l2[g]
        for g in range(lanes):
            ratio[g] = ratio[g] if sum_l2[g] != _ZERO else _ZERO
        _take(better, ratio, scales)
        _take(better, inverse, best_inverse)
        for g in range(lanes):
            ratio[g] = ratio[g] * sum_lx[g]
        _take(better, ratio, best)
    for i in range(GROUP):
        _levels(x[i], best_inverse, codes[i])
    for g in range(lanes):
        if abs(extreme[g]) < _EPSILON:
            scales[g] = _ZERO
            codes[:, g] = -32


@compiled
def _search_q6_k(x: Any, codes: Any, scales: Any, supers: Any, wanted: Any) -> None:
    """First half: group scales by search, their super-scale, and the codes of that search.

    Shapes: x f32 [blocks, 256], codes u8 alike, scales f32 [blocks, 16] (integers), supers f32 [blocks];
    wanted bool [blocks] says whether codes are to be chosen again for the rounded scales.
    """
    chunk = 16  # super-blocks searched together: lanes enough to vectorise, little enough for the cache
    for start in range(0, x.shape[0], chunk):
        count = min(chunk, x.shape[0] - start)
        lanes = np.empty((GROUP, count * GROUPS), np.float32)
        chosen = np.empty((GROUP, count * GROUPS), np.float32)
        found = np.empty(count * GROUPS, np.float32)
        for g in range(count * GROUPS):
            for i in range(GROUP):
                lanes[i, g] = x[start + g // GROUPS, g % GROUPS * GROUP + i]
        _search_scales(lanes, found, chosen)
        for k in range(count):
            b = start + k
            largest = _ZERO
            for g in range(k * GROUPS, (k + 1) * GROUPS):
                if abs(found[g]) > abs(largest):
                    largest = found[g]
            wanted[b] = abs(largest) >= _EPSILON
            if not wanted[b]:
                codes[b] = 0
                scales[b] = _ZERO
                supers[b] = _ZERO
                continue
            inverse = np.float32(-128) / largest
            supers[b] = _ONE / inverse
            for g in range(GROUPS):
                at = k * GROUPS + g
                scales[b, g] = min(np.float32(127), _nearest_int(inverse * found[at]))
                for i in range(GROUP):
                    codes[b, g * GROUP + i] = np.uint8(np.int32(chosen[i, at]) + 32)


@compiled
def _recode_q6_k(x: Any, codes: Any, scales: Any, supers: Any, wanted: Any) -> None:
    """Second half: codes for the scales as they are stored; supers already rounded to FP16."""
    for b in range(x.shape[0]):
        if not wanted[b]:
            continue
        for g in range(GROUPS):
            d = supers[b] * scales[b, g]
            if d == _ZERO:
                continue
            for i in range(g * GROUP, (g + 1) * GROUP):
                codes[b, i] = np.uint8(np.int32(_nearest_level(x[b, i] / d)) + 32)


def _nearest_q6_k(x: F32) -> Quantized:
    blocks = x.reshape(-1, SUPER)
    codes = np.empty(blocks.shape, np.uint8)
    scales = np.empty((len(blocks), GROUPS), np.float32)
    supers = np.empty(len(blocks), np.float32)
    wanted = np.empty(len(blocks), np.bool_)
    _search_q6_k(blocks, codes, scales, supers, wanted)
    supers = halves(half_bytes(supers))
    _recode_q6_k(blocks, codes, scales, supers, wanted)
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
