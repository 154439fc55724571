"""Just-in-time compilation of numeric loops, with the machine code cached on disk."""

from __future__ import annotations

from typing import Any

import numba


def compiled(function: Any) -> Any:
    """Compile without the interpreter lock, keep the machine code on disk, divide like C."""
    return _jit(function)


def _jit(function: Any, **options: Any) -> Any:
    try:
        return numba.njit(function, cache=True, nogil=True, error_model="numpy", **options)
    except RuntimeError:  # neither beside the package nor in the user's cache can anything be written
        return numba.njit(function, nogil=True, error_model="numpy", **options)
