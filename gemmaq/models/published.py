"""Memory figures that a publisher states for the sizes of a family."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PublishedMemory:
    """A publisher's memory figures in decimal GB; sizes go by their names (`gemma-3-4b`).

    Attributes:
        publisher: Name of the publisher.
        widths: Column of the report's table -> bytes of a weight, in the order of the table.
        quoted: Column of the report that is quoted -> size -> GB of the weights. All other columns are computed:
            nominal parameters without the vision tower at the column's width, and the tower in BF16.
        cache_32k: Size -> GB of the KV cache at 32,768 tokens; the sizes of the report, in its order.
        load_columns: Columns of the documentation's table of memory to load a model.
        load: Size -> GB by `load_columns`, None for an empty cell.
        mobile: Size -> GB of the int4 file for phones, scales and tokenizer included.
        remarks: Sentences that compare the figures with the real ones.
    """

    publisher: str
    widths: Mapping[str, float]
    quoted: Mapping[str, Mapping[str, float]]
    cache_32k: Mapping[str, float]
    load_columns: tuple[str, ...]
    load: Mapping[str, tuple[float | None, ...]]
    mobile: Mapping[str, float]
    remarks: tuple[str, ...]

    @property
    def computed(self) -> tuple[str, ...]:
        """Columns of the report that follow from the nominal parameters."""
        return tuple(column for column in self.widths if column not in self.quoted)
