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

import numpy as np

from gemmaq.checkpoint import Checkpoint
from gemmaq.encodings import Encoding, codec
from gemmaq.errors import UsageError
from gemmaq.plan import Format, Plan, PlannedTensor

if TYPE_CHECKING:
    from gemmaq.encodings import F32, U8, Values

NAMES = ("gguf", "mlx", "safetensors")


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


def check(name: str) -> str:
    """The name in lower case.

    Raises:
        UsageError: there is no such container.
    """
    if name.lower() not in NAMES:
        raise UsageError(f"unknown container {name!r}", f"known containers: {', '.join(NAMES)}")
    return name.lower()


def find(name: str) -> Container:
    """The container of a name that `check` has passed."""
    module: Container = import_module(f"{__name__}.{name}")
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


def floats(encoding: Encoding, values: F32) -> U8:
    """Weights or scales as bytes of a float encoding, u8 [rows, bytes]."""
    pack = codec(encoding).pack
    assert pack is not None
    return pack(np.ascontiguousarray(values))


def words(bits: int, values: Values) -> U8:
    """Codes as MLX and compressed-tensors both have them: a stream of bits along the row, lowest first."""
    from gemmaq.encodings.kernels import pack_pairs, pack_stream

    codes = values.codes
    if bits == 8:
        return codes  # type: ignore[no-any-return]
    out = np.empty((len(codes), codes.shape[1] * bits // 8), np.uint8)
    if bits == 4:
        pack_pairs(codes.reshape(-1).view("<u2"), out.reshape(-1))
        return out
    pack_stream(codes.reshape(-1, 8), bits, out.reshape(-1, bits))
    return out
