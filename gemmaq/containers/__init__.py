"""How bytes lie in files: one writer per file format, all with the same few names.

A container module has

    FORMAT              what it demands of tensors (`plan.Format`)
    lay_out(checkpoint, plan, max_shard_bytes)
                        -> the files to write, every byte of them accounted for
    pack(planned, values)
                        -> one u8 array [rows, row bytes] for each piece of the tensor
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

from gemmaq.checkpoint import Checkpoint
from gemmaq.errors import UsageError
from gemmaq.plan import Format, Plan, PlannedTensor

if TYPE_CHECKING:
    from gemmaq.encodings import U8, Values

NAMES = ("gguf", "safetensors")


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


class Container(Protocol):
    """A module of this package."""

    FORMAT: Format
    lay_out: Callable[[Checkpoint, Plan, int | None], tuple[OutputFile, ...]]
    pack: Callable[[PlannedTensor, Values], tuple[U8, ...]]


def find(name: str) -> Container:
    """The container of that name.

    Raises:
        UsageError: there is none.
    """
    if name.lower() not in NAMES:
        raise UsageError(f"unknown container {name!r}", f"known containers: {', '.join(NAMES)}")
    module: Container = import_module(f"{__name__}.{name.lower()}")
    return module


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
