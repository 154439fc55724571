"""Folders for what can be computed again: under $GEMMAQ_CACHE, or where the platform has its caches."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def folder(name: str) -> Path:
    """The folder of one kind of entries; it need not exist."""
    named = os.environ.get("GEMMAQ_CACHE")
    if named:
        return Path(named) / name
    if sys.platform == "darwin":
        return Path.home() / "Library/Caches/gemmaq" / name
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gemmaq" / name
