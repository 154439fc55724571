"""Layout of files: pieces of tensors at their offsets, shards and their names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gemmaq.files.runs import Run, within
from gemmaq.files.span import FileSpan
from gemmaq.planning.plan import PlannedTensor


@dataclass(frozen=True, slots=True)
class Piece:
    """Place of one of a tensor's arrays in a file.

    Attributes:
        offset: offset of its first byte.
        row_bytes: bytes of a row.
        scattered: places of the rows where they do not lie one behind the other.
    """

    offset: int
    row_bytes: int
    scattered: tuple[Run, ...] = ()

    def places(self, first: int, count: int) -> Iterator[tuple[int, int]]:
        """Offset and size in bytes of the runs that hold rows `first` to `first + count`, in order."""
        if not self.scattered:
            yield self.offset + first * self.row_bytes, count * self.row_bytes
        for run, skipped, taken in within(self.scattered, first, count) if self.scattered else ():
            yield run.offset + skipped * self.row_bytes, taken * self.row_bytes


@dataclass(frozen=True, slots=True)
class Placement:
    """A planned tensor and the places of its pieces."""

    tensor: PlannedTensor
    pieces: tuple[Piece, ...]

    @property
    def start(self) -> int:
        """Offset of the first byte; its arrays follow one another."""
        return min(piece.offset for piece in self.pieces)


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
        fixed: bytes that are known from the plan too and lie between the tensors, with their offsets.
    """

    name: str
    size: int
    head: bytes
    placements: tuple[Placement, ...] = ()
    fixed: tuple[tuple[int, bytes], ...] = ()


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


def shard_names(stem: str, suffix: str, count: int) -> list[str]:
    """File names of `count` shards: stem, number and suffix, without a number if there is one file."""
    if count == 1:
        return [stem + suffix]
    return [f"{stem}-{n:05}-of-{count:05}{suffix}" for n in range(1, count + 1)]
