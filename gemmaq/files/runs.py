"""Rows that lie in several places of files: runs of consecutive rows, each at an offset of its own."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gemmaq.files.span import FileSpan
from gemmaq.files.strided import Strided


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive rows at one place.

    Attributes:
        first: Index of its first row.
        count: Number of rows.
        offset: Offset of its first byte.
        span: Its file, None where that is known otherwise.
        zeros: Whether the rows are all zeros and lie in no file.
        strided: How the numbers of the tensor lie from `offset` on; None if one behind the other.
    """

    first: int
    count: int
    offset: int
    span: FileSpan | None = None
    zeros: bool = False
    strided: Strided | None = None


def within(runs: Sequence[Run], first: int, count: int) -> Iterator[tuple[Run, int, int]]:
    """The runs that hold rows `first` to `first + count`, in order.

    Args:
        runs: Runs without gaps, by their first rows.
        first: Index of the first row.
        count: Number of rows.

    Yields:
        A run, the number of its rows that come before, and the number of its rows that are wanted.
    """
    at = bisect_right(runs, first, key=lambda run: run.first) - 1
    while count > 0:
        run = runs[at]
        skipped = first - run.first
        taken = min(count, run.count - skipped)
        yield run, skipped, taken
        first, count, at = first + taken, count - taken, at + 1
