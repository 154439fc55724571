"""Q2_K, Q4_K and Q5_K: super-blocks of 256 weights, in groups of 16 or 32 with a scale and a minimum each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from gemmaq.encodings import ENCODINGS, Codec, Encoding, Quantized
from gemmaq.encodings.lanes import ends, nearest_level
from gemmaq.encodings.legacy import half_bytes, halves
from gemmaq.encodings.packing_kernels import pack_planes, unpack_planes
from gemmaq.encodings.range_search import Rule, choose_codes, fit_ranges
from gemmaq.encodings.scale_descent import by_descent
from gemmaq.encodings.weighing import mean_squares, weigh
from gemmaq.jit import compiled

if TYPE_CHECKING:
    from collections.abc import Callable

    from gemmaq.encodings import F32, U8

SUPER = 256
_ZERO = np.float32(0)

Multiples = tuple["U8", "U8"]
"""Scales and minima of every group as multiples of their super-block's, u8 [blocks, groups]."""


@dataclass(frozen=True, slots=True)
class _Type:
    """What tells one of these types from the others.

    Attributes:
        encoding: its entry.
        group: weights of a group.
        plain: candidates of the search without an importance matrix.
        factor: factor of the mean square in the importance of a weight.
        top: the largest multiple of a super-scale.
        largest: what multiples are cut off at without an importance matrix.
        stored: multiples with an importance matrix -> as the reference's bytes hold them.
        planes: where the bits of the codes lie, as of `pack_planes`.
        head: offset of the two super-scales.
    """

    encoding: Encoding
    group: int
    plain: Rule
    factor: float
    top: int
    largest: int
    stored: Callable[[U8, U8], Multiples]
    planes: tuple[tuple[int, int, int, int], ...]
    head: int = 0

    @property
    def weighted(self) -> Rule:
        """Candidates of the search with an importance matrix."""
        return Rule(self.plain.top, np.float32(-0.9), np.float32(0.05), 36)


def _in_nibbles(scales: U8, minima: U8) -> Multiples:
    """Q2_K: both in one byte; the reference does not cut off what a scale has too much."""
    return scales & np.uint8(15), (scales >> np.uint8(4) | minima) & np.uint8(15)


def _in_six_bits(scales: U8, minima: U8) -> Multiples:
    """Q4_K: the upper bits of the later four share bytes with the first four, which the reference does not cut off."""
    parts: list[U8] = []
    for whole in (scales, minima):
        first, later = whole[:, :4], whole[:, 4:]
        parts.append(np.hstack([first & 63, (later & 15) | ((first >> 6 | later >> 4) & 3) << 4]).astype(np.uint8))
    return parts[0], parts[1]


def _cut_off(scales: U8, minima: U8) -> Multiples:
    return np.minimum(scales, np.uint8(63)), np.minimum(minima, np.uint8(63))


@compiled
def _round(values: Any, top: Any, supers: Any, wholes: Any) -> None:
    """Scales, or negated minima, as multiples of one super-scale a block, in a byte as the reference has them.

    Shapes: values f32 [blocks, groups], supers f32 [blocks], wholes u8 [blocks, groups].
    """
    low, high = ends(-(1 << 22), (1 << 22) - 1)
    for b in range(values.shape[0]):
        largest = _ZERO
        for g in range(values.shape[1]):
            largest = values[b, g] if values[b, g] > largest else largest
        supers[b] = largest / top
        inverse = top / largest if largest > _ZERO else _ZERO
        for g in range(values.shape[1]):
            wholes[b, g] = np.uint8(np.int32(nearest_level(inverse * values[b, g], low, high)) & np.int32(255))


@compiled
def _recode(x: Any, top: Any, q: Any, codes: Any) -> None:
    """Codes for the rounded scales and minima; where a scale became 0, they stay those of the search.

    Shapes: x f32 [groups, n], codes u8 alike; q is the tuple of scales and minima, f32 [blocks, groups], and of their
    super-scales rounded to FP16, f32 [blocks].
    """
    scales, minima, supers, super_minima = q
    low, high = ends(0, top)
    for g in range(x.shape[0]):
        block, at = g // scales.shape[1], g % scales.shape[1]
        scale = supers[block] * scales[block, at]
        minimum = super_minima[block] * minima[block, at]
        if scale != _ZERO:
            for i in range(x.shape[1]):
                codes[g, i] = np.uint8(np.int32(nearest_level((x[g, i] - minimum) / scale, low, high)))


def _rounded(values: F32, kind: _Type, sums: F32 | None) -> tuple[U8, F32]:
    """Multiples u8 [blocks, groups] and super-scales f32 [blocks] of scales or negated minima, f32 [groups].

    Args:
        values: scales or negated minima.
        kind: the type.
        sums: sums of the importances of every group, f32 [groups], None without an importance matrix.
    """
    values = values.reshape(-1, SUPER // kind.group)
    if sums is not None:
        return by_descent(values, sums.reshape(values.shape), kind.top)
    wholes, supers = np.empty(values.shape, np.uint8), np.empty(len(values), np.float32)
    _round(values, np.float32(kind.top), supers, wholes)
    return np.minimum(wholes, np.uint8(kind.largest)), supers


def _quantize(kind: _Type, x: F32, columns: F32 | None = None) -> Quantized:
    groups = x.reshape(-1, kind.group)
    weights = groups[:0]
    if columns is not None:
        weights = weigh(groups, mean_squares(x.reshape(-1, SUPER), kind.factor), columns)
    fitted, codes = np.empty((5, len(groups)), np.float32), np.empty(groups.shape, np.uint8)
    fit_ranges(groups, weights, kind.plain if columns is None else kind.weighted, fitted)
    choose_codes(groups, fitted, kind.plain.top, codes)
    sums = None if columns is None else fitted[4]
    scales, supers = _rounded(fitted[0], kind, sums)
    minima, super_minima = _rounded(-fitted[1], kind, sums)
    if max(scales.max(), minima.max()) > kind.top:
        scales, minima = kind.stored(scales, minima)
    parts = (
        scales.astype(np.float32), minima.astype(np.float32), halves(half_bytes(supers)),
        -halves(half_bytes(super_minima)),
    )  # fmt: skip
    _recode(groups, kind.plain.top, parts, codes)
    return Quantized(codes.reshape(x.shape), *(part.reshape(len(x), -1) for part in parts))


@compiled
def _pack_six_bits(scales: Any, minima: Any, out: Any) -> None:
    """Eight scales and eight minima a block, u8 [blocks, 8], into bytes 4 to 15; the reverse of `_unpack_six_bits`."""
    for b in range(scales.shape[0]):
        for g in range(4):
            scale, minimum = scales[b, g + 4], minima[b, g + 4]
            out[b, 4 + g] = scales[b, g] | ((scale >> 4) << 6)
            out[b, 8 + g] = minima[b, g] | ((minimum >> 4) << 6)
            out[b, 12 + g] = (scale & 15) | ((minimum & 15) << 4)


@compiled
def _unpack_six_bits(raw: Any, scales: Any, minima: Any) -> None:
    for b in range(raw.shape[0]):
        for g in range(4):
            scales[b, g], minima[b, g] = raw[b, 4 + g] & 63, raw[b, 8 + g] & 63
            scales[b, g + 4] = (raw[b, 12 + g] & 15) | ((raw[b, 4 + g] >> 6) << 4)
            minima[b, g + 4] = (raw[b, 12 + g] >> 4) | ((raw[b, 8 + g] >> 6) << 4)


def _pack(kind: _Type, q: Quantized) -> U8:
    assert q.minima is not None and q.supers is not None and q.super_minima is not None
    codes, at = q.codes.reshape(-1, SUPER), kind.head
    out = np.empty((len(codes), kind.encoding.block_bytes), np.uint8)
    scales = q.scales.astype(np.uint8).reshape(len(codes), -1)
    minima = q.minima.astype(np.uint8).reshape(len(codes), -1)
    if kind.top == 15:
        out[:, :16] = scales | minima << 4
    else:
        _pack_six_bits(scales, minima, out)
    for plane in kind.planes:
        pack_planes(codes, plane, out)
    out[:, at : at + 2], out[:, at + 2 : at + 4] = half_bytes(q.supers), half_bytes(-q.super_minima)
    return out.reshape(len(q.codes), -1)


def _read(kind: _Type, raw: U8) -> Quantized:
    blocks, at = raw.reshape(-1, kind.encoding.block_bytes), kind.head
    codes = np.zeros((len(blocks), SUPER), np.uint8)
    for plane in kind.planes:
        unpack_planes(blocks, plane, codes)
    if kind.top == 15:
        scales, minima = blocks[:, :16] & np.uint8(15), blocks[:, :16] >> np.uint8(4)
    else:
        scales, minima = np.empty((2, len(blocks), 8), np.uint8)
        _unpack_six_bits(blocks, scales, minima)
    parts = (
        scales.astype(np.float32), minima.astype(np.float32), halves(blocks[:, at : at + 2]),
        -halves(blocks[:, at + 2 : at + 4]),
    )  # fmt: skip
    return Quantized(codes.reshape(len(raw), -1), *(part.reshape(len(raw), -1) for part in parts))


_DELTA = np.float32(0.1)
_TYPES = (
    _Type(
        ENCODINGS["q2_k"], 16, Rule(3, np.float32(-0.5), _DELTA, 15, absolute=True), 1, 15, 255, _in_nibbles,
        ((2, 0, 32, 16),), head=80,
    ),
    _Type(
        ENCODINGS["q4_k"], 32, Rule(15, np.float32(-1), _DELTA, 20), 2, 63, 63, _in_six_bits, ((4, 0, 32, 16),),
    ),
    _Type(
        ENCODINGS["q5_k"], 32, Rule(31, np.float32(-0.5), _DELTA, 15), 2, 63, 63, _cut_off,
        ((1, 4, 32, 16), (4, 0, 32, 48)),
    ),
)  # fmt: skip

CODECS = {
    kind.encoding.name: Codec(
        partial(_read, kind), partial(_quantize, kind), partial(_pack, kind), partial(_quantize, kind)
    )
    for kind in _TYPES
}
