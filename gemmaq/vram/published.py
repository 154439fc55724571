"""Memory figures that publishers state for their sizes, worked out by their own convention, and the exact ones.

The figures are data of each family (`Family.published`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from gemmaq.models.families import FAMILIES, of_size
from gemmaq.models.published import PublishedMemory, Report
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
    return ((size.nominal - size.towers) * width + 2 * size.towers) / 1e9


def exact_gb(size: Size, width: float) -> float:
    """Decimal GB of the real parameters; `width` is the bytes of a weight."""
    return (size.config.parameters * width + 2 * (size.towers + size.projector)) / 1e9


def reports() -> Iterator[tuple[PublishedMemory, list[Row]]]:
    """Figures of every family that has some, with the rows of its report, none where there is no report."""
    for family in FAMILIES:
        figures = family.published
        if figures is not None:
            report = figures.report
            rows = [_row(report, size) for size in family.sizes if size.name in report.cache_32k] if report else []
            yield figures, rows


def publishers(sizes: Iterable[Size]) -> str:
    """Names of the publishers who state figures of these sizes."""
    figures = (of_size(size).published for size in sizes)
    return ", ".join(dict.fromkeys(known.publisher for known in figures if known is not None))


def _row(report: Report, size: Size) -> Row:
    weights = {
        column: report.quoted[column][size.name] if column in report.quoted else round(weights_gb(size, width), 1)
        for column, width in report.widths.items()
    }
    cache = report.cache_32k[size.name]
    return Row(
        size=size,
        weights_gb=weights,
        weights_kv_32k_gb={column: round(gb + cache, 1) for column, gb in weights.items()},
        exact_gb={column: round(exact_gb(size, width), 3) for column, width in report.widths.items()},
    )


def headline(size: Size, figures: PublishedMemory | None = None) -> str | None:
    """GB in BF16 and in 4 bits as the publisher states them (`54.0 → 14.1`), None for a size without figures.

    Args:
        size: The size.
        figures: Figures to look it up in, by default those of its family.
    """
    figures = figures or of_size(size).published
    if figures is None:
        return None
    if figures.report is not None:
        if size.name not in figures.report.cache_32k:
            return None
        return f"{weights_gb(size, 2):.1f} → {weights_gb(size, 0.5):.1f}"
    table = figures.tables[0]
    cells = dict(zip(table.columns, table.rows.get(size.name, ()), strict=False))
    both = cells.get("bf16"), cells.get("q4_0")
    return " → ".join(f"{gb:.1f}" for gb in both) if all(isinstance(gb, (int, float)) for gb in both) else None
