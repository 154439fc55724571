"""Memory figures that a publisher states for the sizes of a family."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Report:
    """A table of weights, and of weights with a KV cache, of which some columns follow a formula.

    Attributes:
        widths: Column of the table -> bytes of a weight, in the order of the table.
        quoted: Column that is quoted -> size -> GB of the weights. All other columns are computed: nominal parameters
            without the vision tower at the column's width, and the tower in BF16.
        cache_32k: Size -> GB of the KV cache at 32,768 tokens; the sizes of the table, in its order.
    """

    widths: Mapping[str, float]
    quoted: Mapping[str, Mapping[str, float]]
    cache_32k: Mapping[str, float]

    @property
    def computed(self) -> tuple[str, ...]:
        """Columns that follow from the nominal parameters."""
        return tuple(column for column in self.widths if column not in self.quoted)


@dataclass(frozen=True, slots=True)
class Table:
    """A table that is quoted as it stands.

    Attributes:
        title: What it shows, without the publisher.
        date: When it was read or published, in words; empty for one that does not change any more.
        columns: Names of its columns.
        rows: Size -> GB by column; words where the publisher has no number but a range, None for an empty cell.
    """

    title: str
    date: str
    columns: tuple[str, ...]
    rows: Mapping[str, tuple[float | str | None, ...]]


@dataclass(frozen=True, slots=True)
class PublishedMemory:
    """A publisher's memory figures in decimal GB; sizes go by their names (`gemma-3-4b`).

    Attributes:
        publisher: Name of the publisher.
        tables: Tables that are quoted, the one of today first.
        report: Table of a technical report, None if there is none.
        remarks: Sentences that compare the figures with the real ones.
        qat: Sentence on what the publisher says that its QAT checkpoints lose in Q4_0, empty if it says nothing.
    """

    publisher: str
    tables: tuple[Table, ...]
    report: Report | None
    remarks: tuple[str, ...]
    qat: str = ""
