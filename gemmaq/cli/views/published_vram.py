"""What `gemmaq estimate-vram --published` prints: tables as publishers state them, and the exact figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gemmaq.cli import console

if TYPE_CHECKING:
    from gemmaq.models.published import PublishedMemory, Report, Table
    from gemmaq.models.size import Size
    from gemmaq.vram.published import Row


def published(as_json: bool) -> None:
    """Print the publishers' figures and the exact ones."""
    from gemmaq.vram.published import reports

    known = list(reports())
    if as_json:
        console.emit_json("published-vram", _as_json(known))
        return
    for figures, rows in known:
        if figures.report is not None:
            _show_report(figures.publisher, figures.report, rows)
        for table in figures.tables:
            _show_table(figures.publisher, table, exact=figures.report is None)
        for line in figures.remarks:
            console.say(line)


def _as_json(known: Sequence[tuple[PublishedMemory, list[Row]]]) -> dict[str, Any]:
    report = [
        {
            "model": row.size.name,
            "weights_gb": row.weights_gb,
            "weights_kv_32k_gb": row.weights_kv_32k_gb,
            "computed": list(figures.report.computed),
            "exact_gb": row.exact_gb,
        }
        for figures, rows in known
        if figures.report is not None
        for row in rows
    ]
    tables = [
        {"publisher": figures.publisher, "title": table.title, "date": table.date, "rows": list(_rows(table))}
        for figures, _ in known
        for table in figures.tables
    ]
    today = [row for figures, _ in known for row in _rows(figures.tables[0])]
    quoted = {
        "documentation_load_gb": [
            {key: cell for key, cell in row.items() if not key.startswith("mobile")} for row in today
        ],
        "mobile_int4_gb": {row["model"]: gb for row in today if (gb := row.get("mobile int4")) is not None},
        "tables": tables,
    }
    return {"rows": report, "quoted": quoted}


def _rows(table: Table) -> list[dict[str, Any]]:
    return [{"model": name, **dict(zip(table.columns, cells, strict=True))} for name, cells in table.rows.items()]


def _show_report(publisher: str, report: Report, rows: Sequence[Row]) -> None:
    names = [name if name in report.computed else name.replace("_", " ") + "*" for name in report.widths]
    weights = [
        (row.size.name, *(f"{gb:.1f} ({row.exact_gb[name]:.2f})" for name, gb in row.weights_gb.items()))
        for row in rows
    ]
    cached = [
        (row.size.name, *(f"{gb:.1f}" for gb in row.weights_kv_32k_gb.values()), _cache_32k(row.size)) for row in rows
    ]
    console.table(f"{publisher}'s report: weights, GB (exact in brackets)", ("", *names), weights)
    console.table(f"{publisher}'s report: weights and KV cache at 32K, GB*", ("", *names, "exact KV, f16"), cached)
    console.say(
        "* quoted; the other columns follow the report's formula, nominal parameters and a vision tower in BF16."
    )


def _show_table(publisher: str, table: Table, *, exact: bool) -> None:
    date = f", {table.date}" if table.date else ""
    columns = ("", *table.columns, *(["exact text, bf16"] if exact else []))
    rows = [(name, *map(_gb, cells), *([_text(name)] if exact else [])) for name, cells in table.rows.items()]
    console.table(f"{publisher}'s {table.title}{date}", columns, rows)


def _gb(cell: float | str | None) -> str:
    return f"{cell:g}" if isinstance(cell, (int, float)) else cell or ""


def _text(name: str) -> str:
    """GB of the text model's real parameters in BF16."""
    from gemmaq.models.families import require_size

    return f"{2 * require_size(name).config.parameters / 1e9:.2f}"


def _cache_32k(size: Size) -> str:
    """GB of the cache that llama.cpp allocates."""
    from gemmaq import vram

    model = vram.Model(size.name, size.config, 0, 0)
    return f"{vram.estimate(vram.find('llama.cpp'), model, vram.Load(32768)).kv / 1e9:.2f}"
