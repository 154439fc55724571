"""Memory figures that publishers state for their sizes, worked out by their own convention, and the exact ones.

The figures are data of each family (`Family.published`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gemmaq.models.families import FAMILIES, of_size
from gemmaq.models.published import PublishedMemory
from gemmaq.models.size import Size


@dataclass(frozen=True, slots=True)
class Row:
    """A size in a publisher's report.

    Attributes:
        size: The size.
        weights_gb: Column -> the publisher's figure for the weights.
        weights_kv_32k_gb: Column -> the publisher's figure for weights and KV cache at 32,768 tokens.
        exact_gb: Column -> figure for the real parameters in the same types, the vision tower in BF16.
    """

    size: Size
    weights_gb: dict[str, float]
    weights_kv_32k_gb: dict[str, float]
    exact_gb: dict[str, float]


def weights_gb(size: Size, width: float) -> float:
    """Decimal GB by the publishers' formula, not rounded; `width` is the bytes of a weight."""
    return ((size.nominal - size.vision) * width + 2 * size.vision) / 1e9


def exact_gb(size: Size, width: float) -> float:
    """Decimal GB of the real parameters; `width` is the bytes of a weight."""
    return (size.config.parameters * width + 2 * (size.vision + size.projector)) / 1e9


def reports() -> Iterator[tuple[PublishedMemory, list[Row]]]:
    """Figures of every family that has some, with the rows of the report."""
    for family in FAMILIES:
        figures = family.published
        if figures is not None:
            yield figures, [_row(figures, size) for size in family.sizes if size.name in figures.cache_32k]


def publishers() -> str:
    """Names of the publishers whose figures are known."""
    return ", ".join(dict.fromkeys(figures.publisher for figures, _ in reports()))


def _row(figures: PublishedMemory, size: Size) -> Row:
    weights = {
        column: figures.quoted[column][size.name] if column in figures.quoted else round(weights_gb(size, width), 1)
        for column, width in figures.widths.items()
    }
    cache = figures.cache_32k[size.name]
    return Row(
        size=size,
        weights_gb=weights,
        weights_kv_32k_gb={column: round(gb + cache, 1) for column, gb in weights.items()},
        exact_gb={column: round(exact_gb(size, width), 3) for column, width in figures.widths.items()},
    )


def headline(size: Size) -> str | None:
    """GB in BF16 and in int4 as the publisher states them (`54.0 → 14.1`), None for a size without figures."""
    figures = of_size(size).published
    if figures is None or size.name not in figures.cache_32k:
        return None
    return f"{weights_gb(size, 2):.1f} → {weights_gb(size, 0.5):.1f}"
