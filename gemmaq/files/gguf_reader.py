"""Reads the header of GGUF files: keys and tensor infos. Every number is checked before it is used.

Source of the layout: ggml's docs/gguf.md.
"""

from __future__ import annotations

import math
import re
import struct
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gemmaq.errors import GemmaqError, InputError
from gemmaq.files.ggml_types import TYPES, GgmlType
from gemmaq.files.span import FileSpan, Reader
from gemmaq.files.whole import read_head

MAGIC = b"GGUF"
VERSIONS = (2, 3)
STRING, ARRAY, BOOL = 8, 9, 7
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""Value type number -> letter of `struct`."""

_MAX_NAME = 1 << 10
_MAX_STRING = 1 << 22
_MAX_STRINGS = 1 << 21
"""Of all arrays together: the largest vocabulary has 262,144 tokens and twice as many merges."""
_MAX_ENTRIES = 1 << 16
MAX_HEADER = 1 << 26
"""Bytes of a header as a whole: that of the largest vocabulary has 16 MB."""
_LENGTH = struct.Struct("<Q")
_STEP = 1 << 20
"""Bytes of the file that are read at a time."""


def _is_whole(value: Any, limit: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < limit


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


_STANDARD: tuple[tuple[str, str, Callable[[Any], bool]], ...] = (
    (r"general\.(architecture|license|base_model\.\d+\.repo_url)", "a text", lambda v: isinstance(v, str)),
    (r"tokenizer\.(ggml\.model|chat_template(\..+)?)", "a text", lambda v: isinstance(v, str)),
    (r"general\.(tags|languages)|tokenizer\.chat_templates", "a list of texts", lambda v: isinstance(v, list)),
    (r"general\.base_model\.count|split\.(no|count)", "a count", lambda v: _is_whole(v, _MAX_ENTRIES)),
    (r"general\.sampling\..+", "a number", _is_number),
    (r"tokenizer\.ggml\.\w+_token_id", "a token id", lambda v: _is_whole(v, 1 << 32)),
    (r"tokenizer\.ggml\.add_\w+", "a flag", lambda v: isinstance(v, int)),
    (r"\w+\.rope\.scaling\.type", "a text", lambda v: isinstance(v, str)),
    (r"\w+\.rope\.scaling\.factor", "a positive number", lambda v: _is_number(v) and v > 0),
)
"""Keys that the format defines: a pattern of the name, the kind of value in words, and its test."""


class HeaderCut(InputError):
    """The file ends within its header."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor in the header.

    Attributes:
        name: Name of the tensor in the file.
        shape: Its dimensions, rows first (the file lists them the other way round).
        type: Its ggml type.
        offset: Position of its data in the file, in bytes.
    """

    name: str
    shape: tuple[int, ...]
    type: GgmlType
    offset: int

    @property
    def nbytes(self) -> int:
        """Bytes of its data."""
        return self.type.nbytes(self.shape)


@dataclass(frozen=True, slots=True)
class GgufFile:
    """The header of a file.

    Attributes:
        span: The file.
        version: Version of the format.
        keys: Key -> value; numeric arrays as numpy arrays, string arrays as lists.
        tensors: Tensors in the order of the header.
        data_offset: Position of the tensor data, in bytes.
    """

    span: FileSpan
    version: int
    keys: Mapping[str, Any]
    tensors: tuple[TensorInfo, ...]
    data_offset: int


class _Cursor:
    """A position in the header that moves forward; the file is read a step at a time."""

    def __init__(self, span: FileSpan, reader: Reader) -> None:
        self.span = span
        self.reader = reader
        self.buffer = bytearray()
        self.base = 0  # position of the buffer in the file
        self.at = 0  # position in the buffer
        self.strings = 0  # in arrays so far

    @property
    def position(self) -> int:
        return self.base + self.at

    def fail(self, what: str, *, tensor: str | None = None, key: str | None = None) -> InputError:
        """An error at the current position, of the header as a whole or of one of its entries."""
        problem = f"{what} (at byte {self.position})"
        if tensor is None and key is None:
            problem = f"is not a usable GGUF file: {problem}"
        return InputError(problem, path=self.span, tensor=tensor, key=key)

    def need(self, count: int) -> None:
        """Read ahead until the buffer holds the next `count` bytes."""
        missing = self.at + count - len(self.buffer)
        if missing <= 0:
            return
        end = self.base + len(self.buffer)
        if self.position + count > MAX_HEADER:
            raise self.fail(f"the header has more than {MAX_HEADER:,} bytes")
        if end + missing > self.span.size:
            raise HeaderCut(self.fail("the header is cut short").problem, path=self.span)
        del self.buffer[: self.at]
        self.base, self.at = self.position, 0
        self.buffer += self.reader.bytes(self.span, end, min(max(missing, _STEP), self.span.size - end))

    def number(self, letter: str) -> Any:
        size = struct.calcsize("<" + letter)
        self.need(size)
        (value,) = struct.unpack_from("<" + letter, self.buffer, self.at)
        self.at += size
        return value

    def raw(self, count: int) -> bytes:
        self.need(count)
        value = bytes(self.buffer[self.at : self.at + count])
        self.at += count
        return value

    def string(self) -> str:
        length = self.number("Q")
        if length > _MAX_STRING:
            raise self.fail(f"a string claims {length} bytes")
        try:
            return self.raw(length).decode()
        except UnicodeDecodeError as error:
            raise self.fail("a string is not UTF-8") from error

    def texts(self, count: int) -> list[str]:
        """Strings one behind the other: those that lie whole in the buffer without a call for each."""
        found: list[str] = []
        while len(found) < count:
            found.append(self.string())  # reads ahead, and tells what is wrong with one
            buffer, at = self.buffer, self.at
            try:
                for _ in range(count - len(found)):
                    (length,) = _LENGTH.unpack_from(buffer, at)
                    end = at + 8 + length
                    if length > _MAX_STRING or end > len(buffer):
                        break
                    found.append(buffer[at + 8 : end].decode())
                    at = end
            except (struct.error, UnicodeDecodeError):  # the buffer ends within a length, or it is no text
                pass
            self.at = at
        return found

    def name(self) -> str:
        """The name of a key or tensor. Unprintable names are refused: messages show them on a terminal."""
        name = self.string()
        if len(name) > _MAX_NAME or not name.isprintable():
            raise self.fail(f"{name!r:.60} is not a valid name")
        return name

    def value(self, kind: int) -> Any:
        if kind == STRING:
            return self.string()
        if kind in SCALARS:
            return self.number("B") != 0 if kind == BOOL else self.number(SCALARS[kind])
        if kind != ARRAY:
            raise self.fail(f"value type {kind} is unknown")
        inner, count = self.number("I"), self.number("Q")
        if inner == STRING:
            self.strings += count
            if self.strings > _MAX_STRINGS:
                raise self.fail(f"an array claims {count} strings")
            return self.texts(count)
        if inner not in SCALARS:
            raise self.fail(f"array type {inner} is unknown")
        dtype = np.dtype("u1" if inner == BOOL else SCALARS[inner]).newbyteorder("<")
        if count * dtype.itemsize > _MAX_STRING:
            raise self.fail(f"an array claims {count} numbers")
        return np.frombuffer(self.raw(count * dtype.itemsize), dtype)


def is_gguf(path: Path) -> bool:
    """Whether a file begins as GGUF files do, whatever it is called."""
    try:
        return read_head(path, len(MAGIC)) == MAGIC
    except GemmaqError:
        return False


def parse(span: FileSpan) -> GgufFile:
    """Read the header of a GGUF file.

    Raises:
        InputError: It is not GGUF, has an unknown version, or contradicts itself or the size of the file.
    """
    with Reader() as reader:
        cursor = _Cursor(span, reader)
        if span.size < 24 or cursor.raw(4) != MAGIC:
            raise InputError("is not a GGUF file", path=span)
        version = cursor.number("I")
        if version not in VERSIONS:
            swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
            what = "it is big-endian" if swapped in VERSIONS else f"version {version} is not known"
            raise InputError(f"cannot be read: {what}", f"supported: little-endian GGUF {VERSIONS}", path=span)
        tensor_count, key_count = cursor.number("Q"), cursor.number("Q")
        if tensor_count > _MAX_ENTRIES or key_count > _MAX_ENTRIES:
            raise cursor.fail(f"it claims {tensor_count} tensors and {key_count} keys")
        keys: dict[str, Any] = {}
        for _ in range(key_count):
            key = cursor.name()
            if key in keys:
                raise cursor.fail(f"it names the key {key} twice")
            keys[key] = value = cursor.value(cursor.number("I"))
            for pattern, what, is_good in _STANDARD:
                if re.fullmatch(pattern, key) and not is_good(value):
                    raise cursor.fail(f"is {value!r:.60}, not {what}", key=key)
        alignment = keys.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1 or alignment > 1 << 20 or alignment & (alignment - 1):
            raise cursor.fail(f"is {alignment!r:.60}, not a power of two up to 2**20", key="general.alignment")
        infos = [_tensor(cursor, alignment) for _ in range(tensor_count)]
        data_offset = -(-cursor.position // alignment) * alignment
    tensors = tuple(TensorInfo(t.name, t.shape, t.type, data_offset + t.offset) for t in infos)
    _check_extents(span, tensors)
    return GgufFile(span, version, keys, tensors, data_offset)


def _tensor(cursor: _Cursor, alignment: int) -> TensorInfo:
    """One tensor info; its offset is still relative to the tensor data."""
    name = cursor.name()
    dimensions = cursor.number("I")
    if not 1 <= dimensions <= 4:
        raise cursor.fail(f"has {dimensions} dimensions", tensor=name)
    shape = tuple(cursor.number("Q") for _ in range(dimensions))[::-1]
    number, offset = cursor.number("I"), cursor.number("Q")
    kind = TYPES.get(number)
    if kind is None:
        raise cursor.fail(f"has the unknown type {number}", tensor=name)
    if min(shape) < 1 or max(shape) > 1 << 40 or shape[-1] % kind.block:
        raise cursor.fail(f"cannot have the shape {list(shape)} in type {kind.name}", tensor=name)
    if offset % alignment:
        raise cursor.fail(f"is not aligned to {alignment} bytes", tensor=name)
    return TensorInfo(name, shape, kind, offset)


def _check_extents(span: FileSpan, tensors: tuple[TensorInfo, ...]) -> None:
    """Check that tensors lie inside the file, do not overlap, and have different names."""
    end, before = 0, ""
    for tensor in sorted(tensors, key=lambda t: t.offset):
        if tensor.offset < end:
            raise InputError(f"overlaps {before}: the file is corrupt", path=span, tensor=tensor.name)
        end, before = tensor.offset + tensor.nbytes, tensor.name
        if end > span.size:
            raise InputError(
                f"ends at byte {end}, but the file is truncated at {span.size}",
                "download or copy it again",
                path=span,
                tensor=tensor.name,
            )
    twice = [name for name, count in Counter(tensor.name for tensor in tensors).items() if count > 1]
    if twice:
        raise InputError(f"is corrupt: it names the tensor {twice[0]} twice", path=span)
