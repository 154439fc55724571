"""What `gemmaq estimate-vram` shows: tables, JSON entries and the plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gemmaq.cli import console
from gemmaq.errors import UsageError

if TYPE_CHECKING:
    from gemmaq.cli.estimate_vram import Result
    from gemmaq.vram.cards import Card
    from gemmaq.vram.fit import Fit

_MIB = 1 << 20
_GIB = 1 << 30
_LEAST_PLOTTED = 2048
_MOST_LINES = 12


def entry(result: Result) -> dict[str, Any]:
    """One estimate as JSON, sizes in bytes."""
    found, load = result.estimate, result.load
    parts = ("weights", "vision", "kv_global", "kv_local", "compute", "overhead", "total")
    return {
        "model": result.build.model.name,
        "quant": result.build.quant,
        "embedding": result.build.embedding,
        "engine": result.engine.name,
        "context": load.context,
        "kv_type": _kv(load.kv_types),
        "parallel": load.parallel,
        "bytes": {part: getattr(found, part) for part in parts},
        "vision_weights": found.vision_weights,
        "vision_compute": found.vision_compute,
        "host": found.host,
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
        "notes": list(found.notes),
    }


def show(results: Sequence[Result], headlines: bool) -> None:
    """The parts of every estimate, the verdict on every card, and what is taken for granted."""
    from gemmaq.models.families import size_by_name
    from gemmaq.vram.published import headline

    first = results[0]
    names, leads = _leads(results)
    contexts = {result.load.context for result in results}
    seen = any(result.estimate.vision for result in results)
    columns = [*names, "weights", *(["vision"] if seen else []), "KV\nglobal", "KV\nlocal", "compute"]
    columns += ["total\nGB", "\nGiB", *(["Google, GB\nBF16 → int4"] if headlines else [])]
    rows = []
    for lead, result in zip(leads, results, strict=True):
        found, size = result.estimate, size_by_name(result.build.model.name)
        parts = [found.weights, *([found.vision] if seen else []), found.kv_global, found.kv_local, found.compute]
        cells = [*lead, *map(_mib, parts), f"{found.total / 1e9:.2f}", f"{found.total / _GIB:.2f}"]
        if headlines:
            cells.append((headline(size) if size and result.build.quant == "q4_0" else None) or "")
        rows.append(cells)
    where = "" if len(contexts) > 1 else f", {first.load.context:,} tokens"
    title = f"Memory in {first.engine.title}, MiB{where}, {_kv(first.load.kv_types)} cache"
    console.table(title, columns, rows, left=len(names))
    if any(result.fits for result in results):
        _verdicts(results, names, leads)
    overhead = first.estimate.overhead
    if overhead:
        console.out(f"Totals include {_mib(overhead)} MiB of overhead for the driver, a round figure.")
    hidden = [r for r in results if r.build.model.vision and not r.load.vision and r.engine.sees is not None]
    if hidden:
        console.say("Text only; --vision adds the vision side.")
    for note in dict.fromkeys(note for result in results for note in result.estimate.notes):
        console.say(f"Note: {note}.")


def _leads(results: Sequence[Result]) -> tuple[list[str], list[list[str]]]:
    """Titles and cells of the columns that tell results apart."""
    builds = [result.build for result in results]
    embeddings = len({(b.model.name, b.quant, b.embedding) for b in builds}) > len(
        {(b.model.name, b.quant) for b in builds}
    )
    contexts = len({result.load.context for result in results}) > 1
    names = ["", "type", *(["embd"] if embeddings else []), *(["context"] if contexts else [])]
    leads = [
        [
            result.build.model.name.removeprefix("gemma-3-"),
            result.build.quant,
            *([result.build.embedding] if embeddings else []),
            *([f"{result.load.context:,}"] if contexts else []),
        ]
        for result in results
    ]
    return names, leads


def _verdicts(results: Sequence[Result], names: list[str], leads: list[list[str]]) -> None:
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


def draw(path: Path, results: Sequence[Result], cards: Sequence[Card], force: bool) -> None:
    """Memory against context, a line for every model and type, the cards as levels.

    Raises:
        UsageError: too many lines to be told apart.
        OutputError: the file exists or cannot be written.
    """
    from gemmaq import vram
    from gemmaq.charts import lines as charts
    from gemmaq.files import atomic as staging

    chosen = {(r.build.model.name, r.build.quant, r.build.embedding): r for r in results}
    if len(chosen) > _MOST_LINES:
        raise UsageError(
            f"{len(chosen)} lines in one plot cannot be read", f"name models and types, {_MOST_LINES} at most"
        )
    models = {name for name, *_ in chosen}
    embeddings = len(chosen) > len({(name, quant) for name, quant, _ in chosen})
    lines = []
    for (name, quant, embedding), result in chosen.items():
        label = quant if len(models) == 1 else f"{name.removeprefix('gemma-3-')} {quant}"
        points = []
        for context in _contexts(vram.longest(result.build.model, result.load)):
            found = vram.estimate(result.engine, result.build.model, replace(result.load, context=context))
            points.append((float(context), found.total / 1e9))
        lines.append(charts.Line(f"{label} / {embedding}" if embeddings else label, tuple(points)))
    engine, kinds = results[0].engine, _kv(results[0].load.kv_types)
    title = f"{models.pop() if len(models) == 1 else 'Gemma 3'} in {engine.title}, {kinds} KV cache"
    levels = [
        (f"{card.name}, {card.usable * engine.share / 1e9:.1f} GB", card.usable * engine.share / 1e9) for card in cards
    ]
    data = charts.draw(path.suffix.lower(), title, "context, tokens", "memory, GB", lines, levels)
    staging.write_file(path, data, force)


def _contexts(longest: int) -> list[int]:
    """From 2048 to the longest, two steps an octave; at least its last octave."""
    found, at = [], min(_LEAST_PLOTTED, max(1, longest // 2))
    while at < longest:
        found += [at, at + at // 2] if at + at // 2 < longest else [at]
        at *= 2
    return [*found, longest]


def published(as_json: bool) -> None:
    """Google's figures beside the exact ones."""
    from gemmaq.vram import published as google

    table = google.rows()
    if as_json:
        rows = [
            {
                "model": row.size.name,
                "weights_gb": row.weights_gb,
                "weights_kv_32k_gb": row.weights_kv_32k_gb,
                "computed": list(google.COMPUTED),
                "exact_gb": row.exact_gb,
            }
            for row in table
        ]
        load = [
            {"model": name, **dict(zip(google.LOAD_COLUMNS, cells, strict=True))}
            for name, cells in google.LOAD_GB.items()
        ]
        quoted = {"documentation_load_gb": load, "mobile_int4_gb": google.MOBILE_INT4_GB}
        console.emit_json("published-vram", {"rows": rows, "quoted": quoted})
        return
    names = [name if name in google.COMPUTED else name.replace("_", " ") + "*" for name in table[0].weights_gb]
    weights = [
        (row.size.name, *(f"{gb:.1f} ({row.exact_gb[name]:.2f})" for name, gb in row.weights_gb.items()))
        for row in table
    ]
    cached = [
        (row.size.name, *(f"{gb:.1f}" for gb in row.weights_kv_32k_gb.values()), _cache_32k(row.size.name))
        for row in table
    ]
    load_rows = [
        (name, *("" if gb is None else f"{gb:g}" for gb in cells), f"{google.MOBILE_INT4_GB.get(name, '')}")
        for name, cells in google.LOAD_GB.items()
    ]
    console.table("Google's report: weights, GB (exact in brackets)", ("", *names), weights)
    console.table("Google's report: weights and KV cache at 32K, GB*", ("", *names, "exact KV, f16"), cached)
    console.table("Google's documentation: memory to load, GB*", ("", *google.LOAD_COLUMNS, "mobile int4"), load_rows)
    for line in (
        "* quoted; the other columns follow the report's formula, nominal parameters and a vision tower in BF16.",
        "Exact weights differ: 27B has 27.4 billion parameters, and so on; blocks of 32 carry a scale of 16 bits.",
        "The report's KV cache is about six times llama.cpp's, which keeps only the window in five layers of six.",
        "Google's own Q4_0 files are larger than all of these (27B: 17.2 GB), their embedding is F16.",
    ):
        console.say(line)


def _cache_32k(name: str) -> str:
    from gemmaq import vram
    from gemmaq.models.families import require_size

    config: Any = require_size(name).config
    model = vram.Model(name, config, 0, 0)
    return f"{vram.estimate(vram.find('llama.cpp'), model, vram.Load(32768)).kv / 1e9:.2f}"
