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
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

from gemmaq.checkpoint import Checkpoint
from gemmaq.containers.layout import OutputFile
from gemmaq.errors import UsageError
from gemmaq.planning.plan import Format, Plan, PlannedTensor

if TYPE_CHECKING:
    from gemmaq.encodings import U8, Values

NAMES = ("gguf", "mlx", "safetensors")


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
