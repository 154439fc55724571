"""Codes of ggml's IQ2 and IQ3 types as files have them: indices of points on a grid, and signs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gemmaq.encodings.grids import Grid
from gemmaq.jit import compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gemmaq.encodings import F32, U8

    Words = NDArray[np.uint32]

SUPER = 256
EIGHT = 8
_SEVENS = np.arange(0, 28, 7, dtype=np.uint32)


@compiled
def _split(codes: Any, grid: Any, indices: Any, signs: Any) -> None:
    width = grid.points.shape[1]
    for k in range(indices.size):
        number = 0
        for i in range(width - 1, -1, -1):
            number = number * grid.levels + (codes[k * width + i] >> 1)
        indices[k] = grid.indices[number]
    for k in range(signs.size):
        sign = 0
        for i in range(EIGHT - 1, -1, -1):
            sign = 2 * sign + (codes[k * EIGHT + i] & 1)
        signs[k] = sign


@compiled
def _join(indices: Any, signs: Any, grid: Any, codes: Any) -> None:
    width = grid.points.shape[1]
    for k in range(indices.size):
        for i in range(width):
            at = k * width + i
            sign = (signs[at // EIGHT] >> (at % EIGHT)) & 1
            codes[at] = np.uint8(2 * grid.points[indices[k], i] + sign)


def split(codes: U8, grid: Grid) -> tuple[Words, Words]:
    """Indices of the points, u32 [blocks, 64 or 32], and signs of eight weights each, u32 [blocks, 32].

    Args:
        codes: u8 [rows, columns], twice the level, and 1 more for a negative weight.
        grid: their grid.
    """
    blocks = codes.size // SUPER
    indices = np.empty((blocks, SUPER // grid.points.shape[1]), np.uint32)
    signs = np.empty((blocks, SUPER // EIGHT), np.uint32)
    _split(codes.reshape(-1), grid, indices.reshape(-1), signs.reshape(-1))
    return indices, signs


def join(indices: Words, signs: Words, grid: Grid) -> U8:
    """The reverse of `split`: codes, u8 [blocks, 256]."""
    codes = np.empty((len(indices), SUPER), np.uint8)
    _join(np.ascontiguousarray(indices).reshape(-1), np.ascontiguousarray(signs).reshape(-1), grid, codes.reshape(-1))
    return codes


def words(signs: Words, scales: Words) -> Words:
    """Signs u32 [blocks, 32] but for those of every eighth weight, and scales of four bits u32 [blocks, 8], in u32."""
    sevens = (signs & 127).reshape(len(signs), -1, 4) << _SEVENS
    packed: Words = sevens.sum(axis=2, dtype=np.uint32)
    return packed | scales << np.uint32(28)


def signs_in(packed: Words) -> Words:
    """Signs u32 [blocks, 32] in `words`."""
    return with_eighth((packed[:, :, None] >> _SEVENS & np.uint32(127)).reshape(len(packed), -1))


def with_eighth(sevens: Words) -> Words:
    """Signs of eight weights from those of seven: an even number of them is negative."""
    return sevens | (np.bitwise_count(sevens) & 1).astype(np.uint32) << np.uint32(7)


def numbers(scales: F32, unit: float) -> Words:
    """The numbers of four bits of scales that are odd multiples of a unit, 1 to 31."""
    return (scales * np.float32(0.5 / unit)).astype(np.uint32)


def scales(numbers: NDArray[np.integer[Any]], unit: float) -> F32:
    """The reverse of `numbers`."""
    return (2 * numbers.astype(np.float32) + 1) * np.float32(unit)


def nibbles(values: Words) -> U8:
    """Pairs of numbers of four bits as bytes, the first one in the low half: u8 [blocks, n / 2]."""
    return (values[:, ::2] | values[:, 1::2] << 4).astype(np.uint8)


def from_nibbles(raw: U8) -> U8:
    """The reverse of `nibbles`."""
    return np.stack([raw & 15, raw >> 4], axis=2).reshape(len(raw), -1)


def pieces(raw: U8, *sizes: int) -> list[U8]:
    """Parts of blocks, u8 [blocks, block bytes], each contiguous."""
    return [np.ascontiguousarray(part) for part in np.hsplit(raw, np.cumsum(sizes)[:-1])]
