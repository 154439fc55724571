"""Containers: how bytes lie in files. A module here and an entry in `planning.containers` for each.

A container module has

    FORMAT              its demands on tensors (`planning.format.Format`)
    lay_out(checkpoint, plan, max_shard_bytes)
                        -> the files to write, every byte of them accounted for
    pack(planned, values)
                        -> one u8 array [rows, row bytes] for each piece of the tensor
    fused(encoding)     -> the loop that makes these arrays of BF16 weights, rounded to nearest; None without one
    arrays(paths)       -> name -> array, from the headers of the files of a model
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from gemmaq.checkpoint import Checkpoint
from gemmaq.containers.layout import OutputFile, StoredArray
from gemmaq.encodings import Encoding, Fused
from gemmaq.planning.format import Format
from gemmaq.planning.plan import Plan, PlannedTensor

if TYPE_CHECKING:
    from gemmaq.encodings import U8, Values


class Writer(Protocol):
    """A module of this package."""

    FORMAT: Format
    lay_out: Callable[[Checkpoint, Plan, int | None], tuple[OutputFile, ...]]
    pack: Callable[[PlannedTensor, Values], tuple[U8, ...]]
    fused: Callable[[Encoding], Fused | None]
    arrays: Callable[[Sequence[Path]], Mapping[str, StoredArray]]


def writer(name: str) -> Writer:
    """The module of a container, by a name that `planning.containers.check` has passed."""
    module: Writer = import_module(f"{__name__}.{name}")
    return module
