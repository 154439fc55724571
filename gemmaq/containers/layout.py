"""Where the bytes of a file lie: its pieces, placements, shards and their names."""

from __future__ import annotations

from dataclasses import dataclass

from gemmaq.files.span import FileSpan
from gemmaq.planning.plan import PlannedTensor


@dataclass(frozen=True, slots=True)
class Piece:
    """Where one array of a tensor lies in a file: bytes of a row, and the offset of the first."""

    offset: int
    row_bytes: int


@dataclass(frozen=True, slots=True)
class Placement:
    """A planned tensor and where its pieces lie."""

    tensor: PlannedTensor
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class StoredArray:
    """An array as the header of a finished file has it: dtype, shape, and where it lies."""

    dtype: str
    shape: tuple[int, ...]
    span: FileSpan
    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class OutputFile:
    """A file to write.

    Attributes:
        name: within the artifact's folder.
        size: its bytes, exactly.
        head: its first bytes (for a file without tensors, all of them).
        placements: the tensors in it.
    """

    name: str
    size: int
    head: bytes
    placements: tuple[Placement, ...] = ()


def split(tensors: tuple[PlannedTensor, ...], limit: int | None) -> list[list[PlannedTensor]]:
    """Distribute tensors over shards of at most `limit` bytes, in order; a larger tensor has a shard to itself."""
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
    """File names of `count` shards; `pattern` has `{}` where the number goes, which a single file does without."""
    if count == 1:
        return [pattern.format("")]
    return [pattern.format(f"-{n:05}-of-{count:05}") for n in range(1, count + 1)]
