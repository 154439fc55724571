"""Importance matrices of llama.cpp: the mean squared input of every column of the matrices of the layers.

A stack of experts has one for every expert, of the tokens that are routed to it.

The GGUF form is read and written, the older binary form (.dat) is read. Source of both: llama.cpp's
tools/imatrix/imatrix.cpp and common/imatrix-loader.cpp.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gemmaq.checkpoint import Checkpoint
from gemmaq.errors import InputError
from gemmaq.files import gguf_reader
from gemmaq.files.gguf_writer import U32, Info, Keys, aligned, header
from gemmaq.files.malformed import refused
from gemmaq.files.span import FileSpan, Reader

if TYPE_CHECKING:
    from gemmaq.encodings import F32

_SUMS, _COUNTS = ".in_sum2", ".counts"
_TYPE, _DATASETS = "general.type", "imatrix.datasets"
_CHUNKS, _CHUNK_SIZE = "imatrix.chunk_count", "imatrix.chunk_size"
_SEEN = "gemmaq.seen."
"""Begins keys of gemmaq's own; the name of an entry follows."""
_F32 = 0
"""Number of the type F32 in GGUF."""
_MAX_NAME = 1 << 10
_MAX_COLUMNS = 1 << 24
_HINT = "make one of this model with gemmaq imatrix or llama-imatrix"


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """Statistics of the inputs of a matrix, or of a stack of matrices.

    Attributes:
        sums: sum of the squared inputs of every column, f32 [matrices * columns].
        counts: number of inputs of every matrix, f32 [matrices]: tokens; in the older form batches, one number for all.
        seen: number of inputs that every expert really had, f32 [matrices], where those with too few have a share of
            what the others saw; None where all counts are real.
    """

    sums: F32
    counts: F32
    seen: F32 | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Imatrix:
    """An importance matrix.

    Attributes:
        entries: GGUF name of a matrix -> statistics of its inputs.
        datasets: names of the text files, without folders.
        chunks: number of sequences.
        chunk_size: tokens of a sequence; 0 if unknown, as in the older form, whose counts are numbers of sequences.
        warnings: a sentence for each thing the user should know of how it was made; the file does not have them.
    """

    entries: Mapping[str, Entry]
    datasets: tuple[str, ...] = ()
    chunks: int = 0
    chunk_size: int = 0
    warnings: tuple[str, ...] = ()

    def importance(self, name: str) -> F32:
        """Mean squared input of every column, f32 [matrices * columns]; 1 without inputs, as in llama-quantize.

        Args:
            name: GGUF name of a matrix.

        Raises:
            InputError: there is no entry for it.
        """
        entry = self.entries.get(name)
        if entry is None:
            raise InputError(f"the importance matrix has no entry for {name}", _HINT)
        counts = np.repeat(entry.counts, entry.sums.size // entry.counts.size)
        return np.divide(entry.sums, counts, out=np.ones_like(entry.sums), where=counts > 0)


def layer_of(name: str) -> int | None:
    """Number of the layer in the GGUF name of a matrix, None if it is of none."""
    return next((int(part) for part in name.split(".") if part.isdecimal()), None)


def check(imatrix: Imatrix, checkpoint: Checkpoint) -> None:
    """Check that an importance matrix has an entry of the right size for every matrix of the layers.

    Raises:
        InputError: an entry is missing or has another number of columns.
    """
    for tensor in checkpoint.matrices.values():
        entry = imatrix.entries.get(checkpoint.family.names.to_gguf(tensor.name))
        matrices, wanted = tensor.matrices, tensor.matrices * tensor.columns
        size = "no entry" if entry is None else _size(entry.sums.size, entry.counts.size)
        if entry is None or entry.sums.size != wanted or entry.counts.size not in (1, matrices):
            raise InputError(
                f"the importance matrix is of another model than {checkpoint.name}: it has {size} for {tensor.name}, "
                f"which has {_size(wanted, matrices)}",
                _HINT,
            )


def _size(columns: int, matrices: int) -> str:
    return f"{columns} columns" + (f" in {matrices} matrices" if matrices > 1 else "")


def read(path: Path) -> Imatrix:
    """Read an importance matrix in either form.

    Raises:
        NotFoundError: the file does not exist.
        InputError: it is no importance matrix, or damaged.
    """
    span = FileSpan.of(path)
    with refused(span), Reader() as reader:
        magic = bytes(reader.bytes(span, 0, min(4, span.size)))
        return _read_gguf(span, reader) if magic == gguf_reader.MAGIC else _read_older(span, reader)


def _fail(span: FileSpan, what: str) -> InputError:
    return InputError(
        f"is not a usable importance matrix: {what}", "make one with gemmaq imatrix or llama-imatrix", path=span
    )


def _entry(span: FileSpan, name: str, sums: F32, counts: F32) -> Entry:
    """An entry, after a check of its numbers."""
    if not (np.isfinite(sums).all() and (sums >= 0).all()):
        raise _fail(span, f"the sums of {name} are not all finite and positive")
    wrong = counts[~((counts >= 0) & (counts < 2**63))]  # NaN is wrong too
    if wrong.size:
        raise _fail(span, f"the number of inputs of {name} is {wrong[0]}")
    if sums.size % counts.size:
        raise _fail(span, f"{name} has {sums.size} sums and {counts.size} counts")
    return Entry(sums, counts)


def _bare(text: str) -> str:
    """A file name without folders, of any system, and without characters that would upset a terminal."""
    name = text.replace("\\", "/").rstrip("/").rpartition("/")[2][:_MAX_NAME]
    return "".join(letter if letter.isprintable() else "?" for letter in name)


def _read_gguf(span: FileSpan, reader: Reader) -> Imatrix:
    file = gguf_reader.parse(span)
    kind = file.keys.get(_TYPE, "imatrix")
    if kind != "imatrix":
        raise _fail(span, f"its {_TYPE} is {kind!r:.60}")
    datasets, chunks, size = (file.keys.get(key) for key in (_DATASETS, _CHUNKS, _CHUNK_SIZE))
    if not isinstance(datasets, list) or not all(isinstance(text, str) for text in datasets):
        raise _fail(span, f"{_DATASETS} is missing or no list of texts")
    for key, value in ((_CHUNKS, chunks), (_CHUNK_SIZE, size)):
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**32:
            raise _fail(span, f"{key} is missing or no whole number")
    tensors = {tensor.name: tensor for tensor in file.tensors}
    names = {t.removesuffix(_SUMS).removesuffix(_COUNTS) for t in tensors if t.endswith((_SUMS, _COUNTS))}
    if not names:
        raise _fail(span, "it has no entries")
    entries = {}
    for name in sorted(names):
        sums, counts = (_floats(span, reader, name, tensors.get(name + suffix)) for suffix in (_SUMS, _COUNTS))
        entry = _entry(span, name, sums, counts)
        entries[name] = replace(entry, seen=_seen(span, name, counts, file.keys.get(_SEEN + name)))
    return Imatrix(entries, tuple(map(_bare, datasets)), int(chunks or 0), int(size or 0))


def _seen(span: FileSpan, name: str, counts: F32, numbers: Any) -> F32 | None:
    """Inputs that the experts of an entry really had, as its key says; None without one."""
    if numbers is None:
        return None
    seen = np.asarray(numbers, np.float32) if isinstance(numbers, np.ndarray) else np.empty(0, np.float32)
    if seen.shape != counts.shape or not ((seen >= 0) & (seen <= counts)).all():
        raise _fail(span, f"{_SEEN}{name} does not fit the counts of {name}")
    return seen


def _floats(span: FileSpan, reader: Reader, name: str, tensor: gguf_reader.TensorInfo | None) -> F32:
    """Values of a tensor, f32 [n]."""
    if tensor is None:
        raise _fail(span, f"the sums or counts of {name} are missing")
    if tensor.type.number != _F32 or tensor.nbytes > 4 * _MAX_COLUMNS or not tensor.nbytes:
        raise _fail(span, f"{tensor.name} is {tensor.type.name} {list(tensor.shape)}, not F32")
    return np.frombuffer(reader.bytes(span, tensor.offset, tensor.nbytes), "<f4").astype(np.float32, copy=False)


class _Cursor:
    """Position in a file of the older form."""

    def __init__(self, span: FileSpan, reader: Reader) -> None:
        self.span, self.reader, self.at = span, reader, 0

    def bytes(self, count: int) -> bytearray:
        if count > self.span.size - self.at:
            raise _fail(self.span, f"it ends within an entry, at byte {self.span.size}")
        self.at += count
        return self.reader.bytes(self.span, self.at - count, count)

    def number(self, what: str, least: int, most: int) -> int:
        """Read an i32 between `least` and `most`."""
        (value,) = struct.unpack("<i", self.bytes(4))
        if not least <= value <= most:
            raise _fail(self.span, f"{what} is {value} (at byte {self.at - 4})")
        return int(value)


def _read_older(span: FileSpan, reader: Reader) -> Imatrix:
    cursor = _Cursor(span, reader)
    entries: dict[str, Entry] = {}
    for _ in range(cursor.number("the number of entries", 1, 1 << 16)):
        raw = cursor.bytes(cursor.number("the length of a name", 1, _MAX_NAME))
        name = raw.decode(errors="replace")
        if not name.isprintable() or "\ufffd" in name or name in entries:
            raise _fail(span, f"the name {name!r:.60} is unreadable or occurs twice")
        calls = cursor.number(f"the number of calls of {name}", 0, 2**31 - 1)
        size = 4 * cursor.number(f"the number of columns of {name}", 1, _MAX_COLUMNS)
        sums = np.frombuffer(cursor.bytes(size), "<f4").astype(np.float32, copy=False)
        counts = np.array([max(calls, 1)], np.float32)  # without calls llama-quantize takes the sums
        entries[name] = _entry(span, name, sums, counts)
    chunks, datasets = 0, tuple[str, ...]()
    if cursor.at < span.size:
        chunks = max(cursor.number("the number of chunks", -(2**31), 2**31 - 1), 0)
    if cursor.at < span.size:
        length = cursor.number("the length of the text's name", 0, 1 << 16)
        datasets = (_bare(cursor.bytes(length).decode(errors="replace")),) if length else ()
    if cursor.at < span.size:
        raise _fail(span, f"{span.size - cursor.at} bytes follow its last entry")
    return Imatrix(entries, datasets, chunks)


def document(imatrix: Imatrix) -> bytes:
    """An importance matrix as bytes of a GGUF file; they do not depend on the order of entries."""
    keys = Keys()
    keys.text(_TYPE, "imatrix")
    keys.texts(_DATASETS, [_bare(text) for text in imatrix.datasets])
    keys.number(_CHUNKS, imatrix.chunks, U32)
    keys.number(_CHUNK_SIZE, imatrix.chunk_size, U32)
    for name, entry in sorted(imatrix.entries.items()):
        if entry.seen is not None:
            keys.array(_SEEN + name, entry.seen.astype("<u4"), U32)
    arrays: dict[str, Any] = {}
    for name, entry in sorted(imatrix.entries.items()):
        matrices = len(entry.counts)
        shapes = ((matrices, -1), (matrices, 1)) if matrices > 1 else (-1, 1)
        arrays[name + _SUMS] = np.asarray(entry.sums, "<f4").reshape(shapes[0])
        arrays[name + _COUNTS] = np.asarray(entry.counts, "<f4").reshape(shapes[1])
    head, _ = header(keys, [Info(name, array.shape, _F32, array.nbytes) for name, array in arrays.items()])
    data = (array.tobytes().ljust(aligned(array.nbytes), b"\0") for array in arrays.values())
    return head + b"".join(data)
