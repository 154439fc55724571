"""Just-in-time compilation of numeric loops, with the machine code cached on disk."""

from __future__ import annotations

import os
from typing import Any

import numba
from numba.core import event

_ROOM = 400 << 20
"""Bytes of address space that compiling may take: LLVM ends the process where an allocation fails."""


class _Room(event.Listener):
    """Refuses to compile where a limit of the process leaves no room for it."""

    def on_start(self, event: Any) -> None:
        """Look at the limit.

        Raises:
            MemoryError: It leaves too little.
        """
        left = room()
        if left is not None and left < _ROOM:
            raise MemoryError(f"a limit leaves {left >> 20} MiB, compiling takes {_ROOM >> 20}")

    def on_end(self, event: Any) -> None:
        """Nothing."""


def room() -> int | None:
    """Bytes of address space that a limit (ulimit -v) leaves to this process; None without a limit."""
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit == resource.RLIM_INFINITY:
            return None
        with open("/proc/self/statm", "rb") as file:
            return limit - int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (ImportError, OSError, ValueError):
        return None


event.register("numba:compile", _Room())  # type: ignore[no-untyped-call]


def compiled(function: Any) -> Any:
    """Compile without the interpreter lock, keep the machine code on disk, divide like C."""
    return _jit(function)


def _jit(function: Any, **options: Any) -> Any:
    try:
        return numba.njit(function, cache=True, nogil=True, error_model="numpy", **options)
    except RuntimeError:  # neither beside the package nor in the user's cache can anything be written
        return numba.njit(function, nogil=True, error_model="numpy", **options)
