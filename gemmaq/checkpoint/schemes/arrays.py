"""Read rows, or columns, of arrays in safetensors files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gemmaq.checkpoint import Part
from gemmaq.encodings import ENCODINGS
from gemmaq.encodings.bitstream import unpack_floats
from gemmaq.encodings.small_floats import E4M3, E5M2, E8M0
from gemmaq.errors import InputError
from gemmaq.files.safetensors_header import ITEM_BYTES, Entry
from gemmaq.files.span import FileSpan, Reader

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gemmaq.encodings import F32

Arrays = Mapping[str, tuple[FileSpan, Entry]]
"""Suffix of an array -> file and header entry."""

_WHOLE = {"I64": "<i8", "I32": "<i4", "U32": "<u4", "I16": "<i2", "U16": "<u2", "I8": "i1", "U8": "u1"}
_BYTES = {"F8_E4M3": E4M3, "F8_E5M2": E5M2, "F8_E8M0": E8M0}
FLOATS = ("BF16", "F16", "F32", *_BYTES)
"""Dtypes that `numbers` turns into f32."""


_SHORT, _TOGETHER = 1 << 15, 1 << 20
"""Bytes of a row up to which reading it whole takes less time than a read for a part of it, and of such a read."""


@dataclass(frozen=True, slots=True)
class Array:
    """An array in a file, seen as rows of numbers.

    Attributes:
        span: The file.
        offset: Offset of the first byte.
        dtype: safetensors name of its numbers.
        rows: Number of rows.
        columns: Numbers in a row.
    """

    span: FileSpan
    offset: int
    dtype: str
    rows: int
    columns: int

    @property
    def size(self) -> int:
        """Bytes of a number."""
        return ITEM_BYTES[self.dtype]

    @property
    def nbytes(self) -> int:
        """Bytes of the array."""
        return self.rows * self.columns * self.size

    def part(self, rows: int) -> Part:
        """The array as a part of a tensor with so many rows, which may not be the array's own."""
        return Part(self.span, self.offset, self.nbytes // rows, self.dtype)

    def read(self, reader: Reader, first: int = 0, count: int | None = None) -> NDArray[Any]:
        """Rows `first` to `first + count`, all by default, as `numbers` gives them: [rows, columns]."""
        count = self.rows - first if count is None else count
        pitch = self.columns * self.size
        return numbers(self.dtype, reader.bytes(self.span, self.offset + first * pitch, count * pitch)).reshape(
            count, self.columns
        )

    def strip(self, reader: Reader, first: int, count: int) -> NDArray[Any]:
        """Columns `first` to `first + count` of all rows, as `numbers` gives them: [rows, columns]."""
        if count == self.columns:
            return self.read(reader)
        width, pitch = count * self.size, self.columns * self.size
        if pitch <= _SHORT:
            return self._cut(reader, first, count)
        raw = bytearray(self.rows * width)
        view = memoryview(raw)
        for row in range(self.rows):
            reader.into(self.span, self.offset + row * pitch + first * self.size, view[row * width : (row + 1) * width])
        return numbers(self.dtype, raw).reshape(self.rows, count)

    def _cut(self, reader: Reader, first: int, count: int) -> NDArray[Any]:
        """The same as `strip`, cut from whole rows that are read together."""
        step, width = max(1, _TOGETHER // (self.columns * self.size)), self.size
        found = np.empty((self.rows, count * width), np.uint8)
        for row in range(0, self.rows, step):
            rows = min(step, self.rows - row)
            pitch = self.columns * width
            raw = reader.bytes(self.span, self.offset + row * pitch, rows * pitch)
            part = np.frombuffer(raw, np.uint8).reshape(rows, pitch)
            found[row : row + rows] = part[:, first * width : (first + count) * width]
        return numbers(self.dtype, found.tobytes()).reshape(self.rows, count)


def numbers(dtype: str, raw: bytes | bytearray) -> NDArray[Any]:
    """Numbers of a safetensors dtype: f32 for floating point ones, else integers of that size."""
    if dtype in _BYTES:
        table: F32 = np.array(_BYTES[dtype], np.float32)
        return table[np.frombuffer(raw, np.uint8)]
    if dtype in _WHOLE:
        return np.frombuffer(raw, _WHOLE[dtype])
    found = unpack_floats(ENCODINGS[dtype.lower()], np.frombuffer(raw, np.uint8).reshape(1, -1))
    return found.reshape(-1)


def rows_of(arrays: Arrays, suffix: str, columns: int | None = None) -> Array:
    """An array seen as rows: those of its last dimension, or of so many numbers."""
    span, entry = arrays[suffix]
    count = math.prod(entry.shape)
    columns = columns or (entry.shape[-1] if entry.shape else 1)
    return Array(span, entry.offset, entry.dtype, count // max(1, columns), columns)


def matrix(arrays: Arrays, suffix: str, dtypes: tuple[str, ...], *, name: str) -> Array:
    """An array with two dimensions.

    Raises:
        InputError: It has another number of dimensions, another dtype, or no numbers.
    """
    span, entry = arrays[suffix]
    if entry.dtype not in dtypes or len(entry.shape) != 2 or min(entry.shape) < 1:
        raise InputError(
            f"has {suffix} {entry.dtype} {list(entry.shape)}, which cannot be read", path=span, tensor=name
        )
    return Array(span, entry.offset, entry.dtype, *entry.shape)


def need(arrays: Arrays, suffixes: tuple[str, ...], *, name: str, scheme: str) -> None:
    """Refuse a matrix that lacks one of its arrays.

    Raises:
        InputError: One is missing.
    """
    missing = [suffix for suffix in suffixes if suffix not in arrays]
    if missing:
        span = next(iter(arrays.values()))[0]
        raise InputError(
            f"lacks its {missing[0]}: {scheme} stores {', '.join(suffixes)}",
            "download the folder again",
            path=span,
            tensor=name,
        )


def misfit(name: str, arrays: Arrays, columns: int) -> InputError:
    """The error for arrays whose shapes contradict each other, or the number of columns by the config."""
    found = ", ".join(f"{suffix} {list(entry.shape)}" for suffix, (_, entry) in sorted(arrays.items()))
    span = next(iter(arrays.values()))[0]
    return InputError(f"has arrays that do not fit {columns} columns: {found}", path=span, tensor=name)


def weight_settings(settings: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The settings of weights in all groups of modules of compressed-tensors."""
    groups = settings.get("config_groups")
    found = list(groups.values()) if isinstance(groups, Mapping) else []
    weights = [group.get("weights") for group in found if isinstance(group, Mapping)]
    return [each for each in weights if isinstance(each, Mapping)]
