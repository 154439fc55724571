"""Layout of files: pieces of tensors at their offsets, shards and their names."""

from __future__ import annotations

from dataclasses import dataclass

from gemmaq.files.span import FileSpan
from gemmaq.planning.plan import PlannedTensor


@dataclass(frozen=True, slots=True)
class Piece:
    """Place of an array in a file: offset of its first row, and bytes of each row."""

    offset: int
    row_bytes: int


@dataclass(frozen=True, slots=True)
class Placement:
    """A planned tensor and the places of its pieces."""

    tensor: PlannedTensor
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class StoredArray:
    """An array of a finished file by its header: dtype, shape, and place."""

    dtype: str
    shape: tuple[int, ...]
    span: FileSpan
    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class OutputFile:
    """A file to write.

    Attributes:
        name: path within the artifact's folder.
        size: exact size in bytes.
        head: bytes at the beginning; for a file without tensors, all bytes.
        placements: tensors in the file.
    """

    name: str
    size: int
    head: bytes
    placements: tuple[Placement, ...] = ()


def split(tensors: tuple[PlannedTensor, ...], limit: int | None) -> list[list[PlannedTensor]]:
    """Distribute tensors over shards of at most `limit` bytes, in order; a larger tensor gets a shard of its own."""
    shards: list[list[PlannedTensor]] = [[]]
    room = limit
    for tensor in tensors:
        if room is not None and limit is not None and shards[-1] and tensor.nbytes > room:
            shards.append([])
            room = limit
        shards[-1].append(tensor)
        if room is not None:
            room -= tensor.nbytes
    return shards


def shard_names(pattern: str, count: int) -> list[str]:
    """File names of `count` shards; `{}` in `pattern` becomes the number, and nothing if there is one file."""
    if count == 1:
        return [pattern.format("")]
    return [pattern.format(f"-{n:05}-of-{count:05}") for n in range(1, count + 1)]
