"""Writes the header of GGUF files: keys and tensor infos.

Source of the layout: ggml's docs/gguf.md.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gemmaq.files.gguf_reader import ARRAY, BOOL, MAGIC, STRING

ALIGNMENT = 32
U16, U32, I32, F32 = 2, 4, 5, 6
_VERSION = 3


@dataclass(frozen=True, slots=True)
class Info:
    """A tensor for the header: its name, shape (rows first), ggml type number and bytes of data."""

    name: str
    shape: tuple[int, ...]
    ggml_type: int
    nbytes: int


class Keys:
    """The keys of a header, one method for each kind of value."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.count = 0

    def _begin(self, key: str, kind: int) -> None:
        self.data += _string(key) + struct.pack("<I", kind)
        self.count += 1

    def text(self, key: str, value: str) -> None:
        """Add a string."""
        self._begin(key, STRING)
        self.data += _string(value)

    def number(self, key: str, value: float, kind: int) -> None:
        """Add a number of type U16, U32, I32 or F32."""
        self._begin(key, kind)
        self.data += struct.pack("<" + {U16: "H", U32: "I", I32: "i", F32: "f"}[kind], value)

    def flag(self, key: str, value: bool) -> None:
        """Add a boolean."""
        self._begin(key, BOOL)
        self.data += struct.pack("<?", value)

    def texts(self, key: str, values: Sequence[str]) -> None:
        """Add an array of strings."""
        from gemmaq.files.strings import length_prefixed

        self._begin(key, ARRAY)
        self.data += struct.pack("<IQ", STRING, len(values))
        self.data += length_prefixed(values)

    def array(self, key: str, values: Any, kind: int) -> None:
        """Add an array of numbers; `values` are little-endian, of type `kind`."""
        self._begin(key, ARRAY)
        self.data += struct.pack("<IQ", kind, len(values)) + values.tobytes()

    def scalar(self, key: str, value: Any) -> None:
        """Add a value by its type: str, bool, float, list of bool or int, tuple of float, else an unsigned integer."""
        match value:
            case str():
                self.text(key, value)
            case bool():
                self.flag(key, value)
            case [bool(), *_]:
                self.array(key, np.array(value, np.bool_), BOOL)
            case list():
                self.array(key, np.array(value, "<i4"), I32)
            case tuple():
                self.array(key, np.array(value, "<f4"), F32)
            case float():
                self.number(key, value, F32)
            case _:
                self.number(key, value, U32)


def _string(text: str) -> bytes:
    data = text.encode()
    return len(data).to_bytes(8, "little") + data


def aligned(size: int) -> int:
    """`size` rounded up to the alignment of tensor data."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def header(keys: Keys, tensors: Sequence[Info]) -> tuple[bytes, list[int]]:
    """Encode the header of a file whose tensors lie in the order given.

    Returns:
        All bytes up to the tensor data, and the offset of each tensor in the tensor data.
    """
    data = bytearray(MAGIC + struct.pack("<IQQ", _VERSION, len(tensors), keys.count) + keys.data)
    offsets, at = [], 0
    for tensor in tensors:
        shape = tensor.shape
        data += _string(tensor.name) + struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape))
        data += struct.pack("<IQ", tensor.ggml_type, at)
        offsets.append(at)
        at += aligned(tensor.nbytes)
    data += bytes(aligned(len(data)) - len(data))
    return bytes(data), offsets
