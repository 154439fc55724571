"""Parts of a stack of matrices that a file stores as tensors of their own."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Slice:
    """Rows of a tensor under a name of their own.

    Attributes:
        name: Canonical name of the slice.
        shape: Its shape, rows first.
        runs: First row and number of rows in the whole tensor, run by run in the order of the slice's rows.
    """

    name: str
    shape: tuple[int, ...]
    runs: tuple[tuple[int, int], ...]

    @property
    def rows(self) -> int:
        """Number of rows."""
        return sum(count for _, count in self.runs)
