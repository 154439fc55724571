"""Matrices whose weights are `scale * (code - zero)`, with a scale and a zero point for each group of columns."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gemmaq.checkpoint import Tensor
from gemmaq.checkpoint.schemes.arrays import Array
from gemmaq.checkpoint.schemes.codes import Codes
from gemmaq.encodings import ENCODINGS, Encoding, Kind, Quantized
from gemmaq.errors import InputError
from gemmaq.files.span import Reader

if TYPE_CHECKING:
    from gemmaq.encodings import F32, Values


@dataclass(frozen=True, slots=True)
class Grouped:
    """Decoder of a matrix with groups.

    Attributes:
        codes: Codes of all weights.
        scales: Scales: [rows, groups], or [groups, rows] if they are `turned`; a single one holds for all.
        zeros: Zero points, or the one of all groups.
        group: Columns of a group, unless `order` says to which each belongs.
        kind: LINEAR or MINIMA where codes are kept, OPAQUE where rows are decoded.
        order: Group of every column.
        turned: Whether rows of the scales are groups.
        added: Added to the stored zero points, within their bits.
    """

    codes: Codes
    scales: Array
    zeros: Codes | int
    group: int
    kind: Kind
    order: Array | None = None
    turned: bool = False
    added: int = 0

    @property
    def arrays(self) -> tuple[Array, ...]:
        """All arrays that it reads."""
        zeros = () if isinstance(self.zeros, int) else (self.zeros.array,)
        return (self.codes.array, self.scales, *zeros, *(() if self.order is None else (self.order,)))

    def values(self, reader: Reader, first: int, count: int) -> Values:
        """Codes, scales and minima of rows, or their weights, f32 [count, columns].

        Raises:
            InputError: The file ends early or cannot be read, or the order names a group that is not there.
        """
        codes, scales = self.codes.read(reader, first, count), self._scales(reader, first, count)
        if self.kind is Kind.LINEAR:
            return Quantized(codes, scales)
        zeros = self._zeros(reader, first, count)
        if self.kind is Kind.MINIMA:
            return Quantized(codes, scales, -(zeros * scales))
        groups = self._groups(reader, scales.shape[1])
        if zeros.shape[1] > 1:
            zeros = zeros[:, groups]
        weights: F32 = (codes.astype(np.float32) - zeros) * scales[:, groups]
        return weights

    def _scales(self, reader: Reader, first: int, count: int) -> F32:
        """f32 [count, groups]."""
        if self.scales.rows * self.scales.columns == 1:
            return np.repeat(self.scales.read(reader), count, axis=0)
        if self.turned:
            return np.ascontiguousarray(self.scales.strip(reader, first, count).T)
        return self.scales.read(reader, first, count)

    def _zeros(self, reader: Reader, first: int, count: int) -> F32:
        """f32 [count, groups], or [1, 1] for one of all groups."""
        if isinstance(self.zeros, int):
            return np.full((1, 1), self.zeros, np.float32)
        stored = self.zeros.read(reader, first, count)
        if self.added:
            stored = (stored + np.uint8(self.added)) & np.uint8((1 << self.zeros.bits) - 1)
        return stored.astype(np.float32)

    def _groups(self, reader: Reader, groups: int) -> np.ndarray:
        """Group of every column."""
        if self.order is None:
            return np.arange(self.codes.columns) // self.group
        found = self.order.read(reader).reshape(-1)
        if found.min() < 0 or found.max() >= groups:
            raise InputError(
                f"has columns of groups {found.min()} to {found.max()}, but {groups} groups", path=self.order.span
            )
        return found


def make(name: str, decoder: Grouped, shape: tuple[int, ...], *, label: str) -> Tensor:
    """The tensor of a decoder; `label` names its type where codes are not kept, as in `gptq4-g128`."""
    rows = math.prod(shape[:-1])
    encoding = encoding_of(decoder.kind, decoder.codes.bits, decoder.group, columns=shape[-1], label=label)
    parts = tuple(array.part(rows) for array in decoder.arrays)
    nbytes = sum(array.nbytes for array in decoder.arrays)
    return Tensor(name, shape, encoding, parts, "decoded", decoder=decoder, stored_bytes=nbytes)


def encoding_of(kind: Kind, bits: int, group: int, *, columns: int, label: str) -> Encoding:
    """The type of codes: one of the registry if it has one, else a type that can only be read.

    Args:
        kind: How a code becomes a weight.
        bits: Bits of a code.
        group: Columns of a group.
        columns: Columns of the matrix.
        label: Name of a type whose codes are not kept.
    """
    if kind is Kind.OPAQUE:
        return opaque(label, bits)
    zero = 1 << bits - 1 if kind is Kind.LINEAR else None
    for block in (group, 0) if group == columns else (group,):
        same = [e for e in ENCODINGS.values() if (e.kind, e.bits, e.block, e.zero) == (kind, bits, block, zero)]
        if same:
            return min(same, key=lambda encoding: encoding.ggml_type is not None)
    stem = "int" if kind is Kind.LINEAR else "affine"
    size = group * bits // 8 + (2 if kind is Kind.LINEAR else 4)
    return Encoding(f"{stem}{bits}-g{group}", kind, group, size, "foreign", bits=bits, zero=zero, scales="bf16")


def opaque(label: str, bits: int) -> Encoding:
    """A type that can only be read, weight by weight."""
    return Encoding(label, Kind.OPAQUE, 1, 1, "foreign", bits=bits)
