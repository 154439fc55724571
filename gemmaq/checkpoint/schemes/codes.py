"""Integer codes as other programs pack them: along the inputs of a matrix or along its outputs, in words of 32 bits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gemmaq.checkpoint.schemes.arrays import Array
from gemmaq.encodings.bitstream import unpack_codes
from gemmaq.files.span import Reader

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gemmaq.encodings import U8

_AWQ_ORDER = [0, 4, 1, 5, 2, 6, 3, 7]
"""Place in a word of AWQ -> that of the four bits which hold it. Source: awq/utils/packing_utils.py of AutoAWQ."""


@dataclass(frozen=True, slots=True)
class Codes:
    """Codes, or zero points, of a matrix.

    Attributes:
        array: The array that holds them.
        bits: Bits of a code.
        layout: How they lie in it, a key of `LAYOUTS`.
        columns: Codes of a row of the matrix.
    """

    array: Array
    bits: int
    layout: str
    columns: int

    def read(self, reader: Reader, first: int, count: int) -> U8:
        """Codes of rows of the matrix, u8 [count, columns], unsigned.

        Raises:
            InputError: The file ends early or cannot be read.
        """
        return LAYOUTS[self.layout](self, reader, first, count)

    def are(self, code: int, rows: int, *, added: int = 0) -> bool:
        """Whether all codes of so many rows are this one, once a number is added within their bits.

        Raises:
            InputError: The file ends early or cannot be read.
        """
        with Reader() as reader:
            stored = self.read(reader, 0, rows)
        mask = np.uint8((1 << self.bits) - 1)
        return bool((((stored + np.uint8(added)) & mask) == code).all())


def _unpacked(words: NDArray[Any], bits: int, count: int) -> U8:
    """Codes of a stream in words, lowest bit first: [rows, words] of 32 bits -> u8 [rows, count]."""
    raw = np.ascontiguousarray(words).view(np.uint8).reshape(len(words), -1)
    missing = -raw.shape[1] % bits
    if missing:
        raw = np.concatenate([raw, np.zeros((len(raw), missing), np.uint8)], axis=1)
    return unpack_codes(bits, raw)[:, :count]


def _rows(codes: Codes, reader: Reader, first: int, count: int) -> U8:
    """A stream along each row."""
    return _unpacked(codes.array.read(reader, first, count), codes.bits, codes.columns)


def _loose(codes: Codes, reader: Reader, first: int, count: int) -> U8:
    """As many whole codes in each word as it holds."""
    words = codes.array.read(reader, first, count).view(np.uint32)
    shifts = np.arange(32 // codes.bits, dtype=np.uint32) * np.uint32(codes.bits)
    single = (words[:, :, None] >> shifts) & np.uint32((1 << codes.bits) - 1)
    return single.reshape(count, -1)[:, : codes.columns].astype(np.uint8)


def _signed(codes: Codes, reader: Reader, first: int, count: int) -> U8:
    """A signed byte for each code, as if it were from 128 on."""
    return codes.array.read(reader, first, count).view(np.uint8) ^ np.uint8(128)


def _inputs(codes: Codes, reader: Reader, first: int, count: int) -> U8:
    """A stream along the inputs: word i of every row lies in row i of the array."""
    return _unpacked(codes.array.strip(reader, first, count).T, codes.bits, codes.columns)


def _outputs(codes: Codes, reader: Reader, first: int, count: int) -> U8:
    """A stream along the rows of the matrix: row i of the array has column i of the matrix."""
    start, words = _words(codes.bits, first, count)
    stored = codes.array.strip(reader, start, min(words, codes.array.columns - start))
    found = _unpacked(stored, codes.bits, words * 32 // codes.bits)
    return _cut(found, first, count)


def _outputs_first(codes: Codes, reader: Reader, first: int, count: int) -> U8:
    """A stream along the rows of the matrix: column i of the array has column i of the matrix."""
    start, words = _words(codes.bits, first, count)
    stored = codes.array.read(reader, start, min(words, codes.array.rows - start))
    found = _unpacked(stored.T, codes.bits, words * 32 // codes.bits)
    return _cut(found, first, count)


def _awq(codes: Codes, reader: Reader, first: int, count: int) -> U8:
    """Eight rows of the matrix in each word, in AWQ's order; row i of the array has column i of the matrix."""
    start, stop = first // 8, -(-(first + count) // 8)
    words = np.ascontiguousarray(codes.array.strip(reader, start, stop - start))
    pairs = words.view(np.uint8).reshape(len(words), stop - start, 4).transpose(1, 2, 0)
    found = np.empty((stop - start, 8, len(words)), np.uint8)
    for row, place in enumerate(_AWQ_ORDER):
        byte = pairs[:, place // 2]
        found[:, row] = byte >> 4 if place % 2 else byte & np.uint8(15)
    return found.reshape(-1, len(words))[first - 8 * start :][:count]


def _words(bits: int, first: int, count: int) -> tuple[int, int]:
    """First word and number of words that hold codes of a stream; both ends lie where a code and a word begin."""
    start, stop = first // 32, -(-(first + count) // 32)
    return start * bits, (stop - start) * bits


def _cut(found: U8, first: int, count: int) -> U8:
    """The rows that were asked for, of codes that begin with a whole word: [columns, rows] -> [count, columns]."""
    return np.ascontiguousarray(found[:, first % 32 :][:, :count].T)


LAYOUTS: dict[str, Callable[[Codes, Reader, int, int], U8]] = {
    "rows": _rows,
    "loose": _loose,
    "signed": _signed,
    "inputs": _inputs,
    "outputs": _outputs,
    "outputs first": _outputs_first,
    "awq": _awq,
}
