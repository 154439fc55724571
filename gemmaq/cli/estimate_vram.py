"""`gemmaq estimate-vram`."""

from __future__ import annotations


def estimate_vram() -> None:
    """Say how much memory a model takes."""
