"""Numbers that do not lie one behind the other in a file, as those of transposed or sliced views in PyTorch's files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gemmaq.files.span import FileSpan, Reader

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SPREAD = 4
"""A slab is read in one go if the bytes between its first and last number are at most so many times its own."""


@dataclass(frozen=True, slots=True)
class Strided:
    """How the numbers of a tensor lie in a file.

    Attributes:
        shape: Shape of the tensor, rows first.
        strides: Bytes from a number to the next along each axis; 0 where all are the same number.
        item: Bytes of a number.
    """

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    item: int

    def read(self, reader: Reader, span: FileSpan, offset: int, rows: tuple[int, int]) -> NDArray[np.uint8]:
        """Rows of the tensor, all axes but the last seen as one.

        Args:
            reader: Reader of the file.
            span: The file.
            offset: Position of the tensor's first number, in bytes.
            rows: Index of the first row, and number of rows.

        Returns:
            Bytes, u8 [rows, columns * item].

        Raises:
            InputError: The file ends early or cannot be read.
        """
        first, count = rows
        leading = np.unravel_index(np.arange(first, first + count), self.shape[:-1]) if self.shape[:-1] else ()
        starts = np.zeros(count, np.int64)
        for index, stride in zip(leading, self.strides, strict=False):
            starts += index * stride
        columns = np.arange(self.shape[-1], dtype=np.int64) * self.strides[-1]
        reach = int(starts.max() - starts.min() + columns[-1]) + self.item
        if reach <= _SPREAD * count * len(columns) * self.item + (1 << 16):
            return self._gathered(reader, span, offset, (starts[:, None] + columns).reshape(count, -1))
        out = np.empty((count, len(columns), self.item), np.uint8)
        for at, column in enumerate(columns.tolist()):
            out[:, at] = self._gathered(reader, span, offset, starts[:, None] + column)
        return out.reshape(count, -1)

    def _gathered(self, reader: Reader, span: FileSpan, offset: int, places: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The numbers at these places, u8 [rows, columns * item]; everything between the first and last is read."""
        low, high = int(places.min()), int(places.max())
        data = np.frombuffer(reader.bytes(span, offset + low, high - low + self.item), f"V{self.item}")
        return data[(places - low) // self.item].view(np.uint8).reshape(len(places), -1)
