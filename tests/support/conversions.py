"""Conversions that the tests of a file share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from itertools import count
from pathlib import Path

from inprocess import run


def conversions(sources: Mapping[str, Path], root: Path, *always: str) -> Callable[..., Path]:
    """A function that converts the source of a kind with some options, once for the same ones, and gives the folder."""
    numbers = count()

    @cache
    def convert(kind: str, *options: str) -> Path:
        out = root / f"out-{next(numbers)}"
        run("convert", sources[kind], *always, *options, "-o", out)
        return out

    return convert
