"""Reads the header of safetensors files. Every number is checked before it is used.

Source of the layout: the format section of the safetensors README.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gemmaq.errors import InputError
from gemmaq.files.malformed import parse_json
from gemmaq.files.span import FileSpan, Reader

ITEM_BYTES = {
    "F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2,
    "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip
MAX_HEADER = 1 << 23
"""Bytes; a model of 60 layers has less than a tenth of it."""
_MAX_NAME = 1 << 10
_MAX_DIMENSIONS = 16


@dataclass(frozen=True, slots=True)
class Entry:
    """A tensor in the header of a weight file.

    Attributes:
        name: Name of the tensor in the file.
        dtype: Its dtype, as safetensors spells it.
        shape: Its shape, rows first.
        offset: Position of its data in the file, in bytes.
        nbytes: Bytes of its data.
        strides: Bytes from a number to the next along each axis, of a view in a file of torch.save; None if the numbers
            lie one behind the other.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int
    strides: tuple[int, ...] | None = None


def parse(span: FileSpan) -> list[Entry]:
    """Read the header of a safetensors file.

    Raises:
        InputError: It is not safetensors, or contradicts itself or the size of the file.
    """
    with Reader() as reader:
        if span.size < 10:
            raise InputError(f"is not a safetensors file: it has {span.size} bytes", path=span)
        length = int.from_bytes(reader.bytes(span, 0, 8), "little")
        if length > span.size - 8:
            raise InputError(f"is truncated or not safetensors: its header claims {length} bytes", path=span)
        if length > MAX_HEADER or reader.bytes(span, 8, 1) != b"{":
            raise InputError(f"is not a safetensors file: no header of {length} bytes begins at byte 8", path=span)
        text = reader.bytes(span, 8, length)
    try:
        header = parse_json(text.decode(), _no_duplicates)
    except ValueError as error:
        raise InputError(f"has a broken header: {error}", path=span) from error
    header.pop("__metadata__", None)
    entries = [_entry(span, name, value, 8 + length) for name, value in header.items()]
    end, before = 8 + length, "the header"
    for entry in sorted(entries, key=lambda e: (e.offset, e.nbytes)):
        if entry.offset < end:
            raise InputError(f"overlaps {before}: the file is corrupt", path=span, tensor=entry.name)
        end, before = entry.offset + entry.nbytes, entry.name
    return entries


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("it names a tensor twice")
    return result


def _entry(span: FileSpan, name: str, value: Any, data: int) -> Entry:
    if len(name) > _MAX_NAME or not name.isprintable():  # half a surrogate pair is not printable either
        raise InputError(f"has a broken header: {name!r:.60} is not a valid tensor name", path=span)
    try:
        dtype, shape, (begin, end) = value["dtype"], tuple(value["shape"]), value["data_offsets"]
        numbers = (*shape, begin, end)
        if not isinstance(dtype, str) or len(shape) > _MAX_DIMENSIONS:
            raise TypeError
        if not all(isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 1 << 62 for n in numbers):
            raise TypeError
    except (KeyError, TypeError, ValueError):
        raise InputError(f"has a broken header: the entry of tensor {name!r} is malformed", path=span) from None
    if dtype not in ITEM_BYTES:
        raise InputError(f"has the unknown dtype {dtype!r:.60}", path=span, tensor=name)
    nbytes = ITEM_BYTES[dtype]
    for size in shape:
        nbytes *= size
    if end - begin != nbytes:
        raise InputError(
            f"takes {nbytes} bytes as {dtype} {list(shape)}, not {end - begin}: the file is corrupt",
            path=span,
            tensor=name,
        )
    if data + end > span.size:
        raise InputError(
            f"ends at byte {data + end}, but the file is truncated at {span.size}",
            "download or copy it again",
            path=span,
            tensor=name,
        )
    return Entry(name, dtype, shape, data + begin, nbytes)
