"""Tables, JSON entries and the plot of `gemmaq estimate-vram`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gemmaq.cli import console
from gemmaq.errors import UsageError
from gemmaq.models.families import short_name, size_by_name

if TYPE_CHECKING:
    from gemmaq.models.published import PublishedMemory
    from gemmaq.models.size import Size
    from gemmaq.vram.cards import Card
    from gemmaq.vram.fit import Fit, Result
    from gemmaq.vram.published import Row

_MIB = 1 << 20
_GIB = 1 << 30
_LEAST_PLOTTED = 2048
_MOST_LINES = 12


def entry(result: Result) -> dict[str, Any]:
    """One estimate as JSON, sizes in bytes."""
    estimate, load = result.estimate, result.load
    parts = ("weights", "vision", "kv_global", "kv_local", "compute", "overhead", "total")
    return {
        "model": result.build.model.name,
        "quant": result.build.quant,
        "embedding": result.build.embedding,
        "engine": result.engine.name,
        "context": load.context,
        "kv_type": _kv(load.kv_types),
        "parallel": load.parallel,
        "bytes": {part: getattr(estimate, part) for part in parts},
        "vision_weights": estimate.vision_weights,
        "vision_compute": estimate.vision_compute,
        "host": estimate.host,
        "gpus": [
            {
                "name": fit.card.name,
                "bytes": fit.card.bytes,
                "usable": fit.capacity,
                "fits": fit.fits,
                "room": fit.room,
                "max_context": fit.max_context,
                "max_quant": fit.max_quant,
            }
            for fit in result.fits
        ],
        "notes": list(estimate.notes),
    }


def show(results: Sequence[Result], *, headlines: bool) -> None:
    """Print the parts of every estimate, how it fits every card, and the assumptions.

    Args:
        results: Results in the order of the rows.
        headlines: Whether the publisher's figures are shown next to the totals, both in GB.
    """
    from gemmaq.vram.published import publishers

    first = results[0]
    names, leads = _labels(results)
    contexts = {result.load.context for result in results}
    vision = any(result.estimate.vision for result in results)
    columns = [*names, "weights", *(["vision"] if vision else []), "KV\nglobal", "KV\nlocal", "compute"]
    columns += ["total\nGiB", *(["\nGB", f"{publishers()}, GB\nBF16 → int4"] if headlines else [])]
    rows = []
    for lead, result in zip(leads, results, strict=True):
        estimate = result.estimate
        parts = [estimate.weights, *([estimate.vision] if vision else [])]
        parts += [estimate.kv_global, estimate.kv_local, estimate.compute]
        cells = [*lead, *map(_mib, parts), f"{estimate.total / _GIB:.2f}"]
        rows.append([*cells, *([f"{estimate.total / 1e9:.2f}", _headline(result)] if headlines else [])])
    context = "" if len(contexts) > 1 else f", {first.load.context:,} tokens"
    title = f"Memory in {first.engine.title}, MiB{context}, {_kv(first.load.kv_types)} cache"
    console.table(title, columns, rows, left=len(names))
    if any(result.fits for result in results):
        _show_fits(results, names, leads)
    _show_notes(results)


def _show_notes(results: Sequence[Result]) -> None:
    overhead = results[0].estimate.overhead
    if overhead:
        console.out(f"Totals include {_mib(overhead)} MiB of overhead for the driver, a round figure.")
    if any(r.build.model.vision_config and not r.load.vision and r.engine.supports_vision for r in results):
        console.say("Text only; --vision adds the vision side.")
    for note in dict.fromkeys(note for result in results for note in result.estimate.notes):
        console.say(f"Note: {note}.")


def _headline(result: Result) -> str:
    from gemmaq.vram.published import headline

    size = size_by_name(result.build.model.name)
    return (headline(size) if size and result.build.quant == "q4_0" else None) or ""


def _labels(results: Sequence[Result]) -> tuple[list[str], list[list[str]]]:
    """Titles and cells of the first columns, which tell results apart."""
    builds = [result.build for result in results]
    embeddings = len({(b.model.name, b.quant, b.embedding) for b in builds}) > len(
        {(b.model.name, b.quant) for b in builds}
    )
    contexts = len({result.load.context for result in results}) > 1
    names = ["", "type", *(["embd"] if embeddings else []), *(["context"] if contexts else [])]
    leads = [
        [
            short_name(result.build.model.name),
            result.build.quant,
            *([result.build.embedding] if embeddings else []),
            *([f"{result.load.context:,}"] if contexts else []),
        ]
        for result in results
    ]
    return names, leads


def _show_fits(results: Sequence[Result], names: list[str], leads: list[list[str]]) -> None:
    rows = [
        (
            *lead,
            fit.card.name,
            _verdict(fit),
            f"{fit.capacity / _GIB:.1f}",
            f"{fit.max_context:,}" if fit.max_context else "none",
            fit.max_quant or "none",
        )
        for lead, result in zip(leads, results, strict=True)
        for fit in result.fits
    ]
    columns = (*names, "card", "verdict", "usable\nGiB", "largest\ncontext", "largest\ntype")
    console.table("On these cards", columns, rows, left=len(names) + 2)


def _verdict(fit: Fit) -> str:
    gib = abs(fit.room) / _GIB
    return f"fits, {gib:.2f} GiB free" if fit.fits else f"too large by {gib:.2f} GiB"


def _mib(size: int) -> str:
    return f"{size / _MIB:,.0f}" if size >= 1000 * _MIB else f"{size / _MIB:,.1f}"


def _kv(kinds: tuple[str, str]) -> str:
    return kinds[0] if kinds[0] == kinds[1] else ",".join(kinds)


def draw(path: Path, results: Sequence[Result], cards: Sequence[Card], *, force: bool) -> None:
    """Draw memory against context, a line for every model and type, and the cards as levels.

    Raises:
        UsageError: There are too many lines to tell apart.
        OutputError: The file exists or cannot be written.
    """
    from gemmaq import vram
    from gemmaq.charts import Labels
    from gemmaq.charts import lines as charts
    from gemmaq.files import atomic as staging

    chosen = {(r.build.model.name, r.build.quant, r.build.embedding): r for r in results}
    if len(chosen) > _MOST_LINES:
        raise UsageError(
            f"{len(chosen)} lines are too many for one plot", f"name models and types, {_MOST_LINES} lines at most"
        )
    models = {name for name, *_ in chosen}
    embeddings = len(chosen) > len({(name, quant) for name, quant, _ in chosen})
    lines = []
    for (name, quant, embedding), result in chosen.items():
        label = quant if len(models) == 1 else f"{short_name(name)} {quant}"
        points = []
        for context in _contexts(vram.longest(result.build.model, result.load)):
            estimate = vram.estimate(result.engine, result.build.model, replace(result.load, context=context))
            points.append((float(context), estimate.total / _GIB))
        lines.append(charts.Line(f"{label} / {embedding}" if embeddings else label, tuple(points)))
    engine, kinds = results[0].engine, _kv(results[0].load.kv_types)
    title = f"{models.pop() if len(models) == 1 else 'Memory'} in {engine.title}, {kinds} KV cache"
    usable = {card.name: card.usable * engine.share / _GIB for card in cards}
    levels = [(f"{name}, {gib:.1f} GiB", gib) for name, gib in usable.items()]
    labels = Labels(title, "context, tokens", "memory, GiB")
    data = charts.draw(path.suffix.lower(), labels, lines, levels=levels, powers_of_two=True)
    staging.write_file(path, data, force)


def _contexts(longest: int) -> list[int]:
    """Contexts from 2048 to the longest, two an octave; at least the last octave."""
    contexts, context = [], min(_LEAST_PLOTTED, max(1, longest // 2))
    while context < longest:
        between = context + context // 2
        contexts += [context, between] if context < between < longest else [context]
        context *= 2
    return [*contexts, longest]


def published(as_json: bool) -> None:
    """Print the publishers' figures and the exact ones."""
    from gemmaq.vram.published import reports

    if not as_json:
        for figures, rows in reports():
            _show_published(figures, rows)
        return
    report: list[dict[str, Any]] = []
    load: list[dict[str, Any]] = []
    mobile: dict[str, float] = {}
    for figures, rows in reports():
        report += (
            {
                "model": row.size.name,
                "weights_gb": row.weights_gb,
                "weights_kv_32k_gb": row.weights_kv_32k_gb,
                "computed": list(figures.computed),
                "exact_gb": row.exact_gb,
            }
            for row in rows
        )
        load += (
            {"model": name, **dict(zip(figures.load_columns, cells, strict=True))}
            for name, cells in figures.load.items()
        )
        mobile |= figures.mobile
    quoted = {"documentation_load_gb": load, "mobile_int4_gb": mobile}
    console.emit_json("published-vram", {"rows": report, "quoted": quoted})


def _show_published(figures: PublishedMemory, rows: Sequence[Row]) -> None:
    publisher = figures.publisher
    names = [name if name in figures.computed else name.replace("_", " ") + "*" for name in figures.widths]
    weights = [
        (row.size.name, *(f"{gb:.1f} ({row.exact_gb[name]:.2f})" for name, gb in row.weights_gb.items()))
        for row in rows
    ]
    cached = [
        (row.size.name, *(f"{gb:.1f}" for gb in row.weights_kv_32k_gb.values()), _cache_32k(row.size)) for row in rows
    ]
    load = [
        (name, *("" if gb is None else f"{gb:g}" for gb in cells), f"{figures.mobile.get(name, '')}")
        for name, cells in figures.load.items()
    ]
    console.table(f"{publisher}'s report: weights, GB (exact in brackets)", ("", *names), weights)
    console.table(f"{publisher}'s report: weights and KV cache at 32K, GB*", ("", *names, "exact KV, f16"), cached)
    columns = ("", *figures.load_columns, "mobile int4")
    console.table(f"{publisher}'s documentation: memory to load, GB*", columns, load)
    for line in (
        "* quoted; the other columns follow the report's formula, nominal parameters and a vision tower in BF16.",
        *figures.remarks,
    ):
        console.say(line)


def _cache_32k(size: Size) -> str:
    """GB of the cache that llama.cpp allocates."""
    from gemmaq import vram

    model = vram.Model(size.name, size.config, 0, 0)
    return f"{vram.estimate(vram.find('llama.cpp'), model, vram.Load(32768)).kv / 1e9:.2f}"
