"""Warnings of libraries about their own future, which users can do nothing about."""

from __future__ import annotations

import sys
import warnings
from typing import Any

_ABOUT_THE_FUTURE = (FutureWarning, DeprecationWarning, PendingDeprecationWarning)


def leave_out() -> None:
    """Do not print them, unless Python was told to show warnings (`-W`, PYTHONWARNINGS).

    A filter would not do: libraries set filters of their own.
    """
    show = warnings.showwarning
    if sys.warnoptions or getattr(show, "leaves_out", False):
        return

    def showwarning(*what: Any, **more: Any) -> None:
        if not issubclass(what[1] if len(what) > 1 else more["category"], _ABOUT_THE_FUTURE):
            show(*what, **more)

    showwarning.leaves_out = True  # type: ignore[attr-defined]
    warnings.showwarning = showwarning
