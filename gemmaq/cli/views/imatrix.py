"""Statistics of an importance matrix, as a table or as JSON."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gemmaq.cli import console
from gemmaq.cli.console import Output

if TYPE_CHECKING:
    from gemmaq.calibration.imatrix import Imatrix
    from gemmaq.calibration.summary import Kind

_COLUMNS = ("kind", "tensors", "sum", "largest\n1 %", "active", "never\nused", "like layer\nbefore")


def show_statistics(path: Path, shown: Output) -> None:
    """Show what an importance matrix says; as JSON with the figures of every matrix.

    Raises:
        NotFoundError, InputError: the file is missing or unusable.
    """
    from gemmaq.calibration.imatrix import read
    from gemmaq.calibration.summary import kinds, statistics

    matrix = read(path)
    figures = statistics(matrix)
    of_kinds = kinds(figures)

    def document() -> dict[str, Any]:
        return {
            "path": str(path),
            "datasets": list(matrix.datasets),
            "chunks": matrix.chunks,
            "chunk_size": matrix.chunk_size,
            "kinds": [asdict(kind) for kind in of_kinds],
            "tensors": [asdict(one) for one in figures],
        }

    def show() -> None:
        console.table(_title(path, matrix), _COLUMNS, [_row(kind) for kind in of_kinds])

    shown.emit(document, essential=lambda: [str(path)], show=show)


def _title(path: Path, matrix: Imatrix) -> str:
    """File, texts and their length."""
    length = f"{matrix.chunks:,} sequences" + (f" of {matrix.chunk_size:,} tokens" if matrix.chunk_size else "")
    return f"{path}: {', '.join(matrix.datasets) or 'texts unknown'}, {length}"


def _row(kind: Kind) -> list[str]:
    unused = f"{kind.unseen:,} of {kind.experts:,} experts" if kind.experts else f"{kind.zeros:,} columns"
    return [
        kind.kind,
        f"{kind.tensors:,}",
        f"{kind.total:.5g}",
        f"{kind.top:.1%}",
        f"{kind.active:.1%}",
        unused,
        "" if kind.similarity is None else f"{kind.similarity:.3f}",
    ]
