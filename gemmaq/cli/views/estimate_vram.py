"""Tables, JSON entries and the plot of `gemmaq estimate-vram`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gemmaq.cli import console
from gemmaq.errors import UsageError
from gemmaq.models.families import short_names, size_by_name

if TYPE_CHECKING:
    from gemmaq.vram import Estimate
    from gemmaq.vram.cards import Card
    from gemmaq.vram.fit import Fit, Result

_GIB = 1 << 30
_LEAST_PLOTTED = 2048
_MOST_LINES = 12
_MOST_PARTS = 2
"""Columns before those of the cache, beside which there is room for two of it."""


def entry(result: Result) -> dict[str, Any]:
    """One estimate as JSON, sizes in bytes."""
    estimate, load = result.estimate, result.load
    drafter = result.build.model.drafter
    parts = ("weights", "vision", "draft", "kv_global", "kv_local", "compute", "overhead", "total")
    return {
        "model": result.build.model.name,
        "quant": result.build.quant,
        "embedding": result.build.embedding,
        "engine": result.engine.name,
        "context": load.context,
        "kv_type": _kv(load.kv_types),
        "kv_cost": _kv_cost(estimate),
        "parallel": load.parallel,
        "bytes": {part: getattr(estimate, part) for part in parts},
        "vision_weights": estimate.vision_weights,
        "vision_compute": estimate.vision_compute,
        "draft": drafter.name if drafter else None,
        "draft_weights": estimate.draft_weights,
        "draft_compute": estimate.draft_compute,
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


def _kv_cost(estimate: Estimate) -> dict[str, Any] | None:
    """What the types of the cache cost in quality, and the model that it was measured on."""
    cost = estimate.kv_cost
    return None if cost is None else {"measured_on": cost.model, "mean_kl": cost.kl}


def show(results: Sequence[Result], *, headlines: bool) -> None:
    """Print the parts of every estimate, how it fits every card, and the assumptions, in one unit.

    That is GiB, in which cards are sold, or GB beside the publisher's figures.

    Args:
        results: Results in the order of the rows.
        headlines: Whether the publisher's figures are shown next to the totals.
    """
    first = results[0]
    names, leads = _labels(results)
    contexts = {result.load.context for result in results}
    parts = _parts(results, headlines=headlines)
    unit, size = ("GB", 10**9) if headlines else ("GiB", _GIB)
    columns = [*names, *parts, "total", *([_publishers(results)] if headlines else [])]
    rows = []
    for lead, result in zip(leads, results, strict=True):
        sizes = [*(part(result.estimate) for part in parts.values()), result.estimate.total]
        rows.append([*lead, *(f"{part / size:.2f}" for part in sizes), *([_headline(result)] if headlines else [])])
    context = "" if len(contexts) > 1 else f", {first.load.context:,} tokens"
    title = f"Memory in {first.engine.title}, {unit}{context}, {_kv(first.load.kv_types)} cache"
    spare = (*(columns[-1:] if headlines else ()), "host\nRAM", "compute")
    console.table(title, columns, rows, left=len(names), spare=spare)
    if any(result.fits for result in results):
        _show_fits(results, names, leads)
    _show_notes(results, unit, size)


def _parts(results: Sequence[Result], *, headlines: bool) -> dict[str, Callable[[Estimate], int]]:
    """Columns of bytes; the cache is one of them where the table would be more than 80 characters wide otherwise."""
    parts: dict[str, Callable[[Estimate], int]] = {"weights": lambda estimate: estimate.weights}
    if any(result.estimate.vision for result in results):
        parts["vision"] = lambda estimate: estimate.vision
    if any(result.estimate.draft for result in results):
        parts["drafter"] = lambda estimate: estimate.draft
    if headlines or len(parts) > _MOST_PARTS:
        parts["KV"] = lambda estimate: estimate.kv
    else:
        parts["KV\nglobal"] = lambda estimate: estimate.kv_global
        parts["KV\nlocal"] = lambda estimate: estimate.kv_local
    parts["compute"] = lambda estimate: estimate.compute
    if any(result.estimate.host for result in results):
        parts["host\nRAM"] = lambda estimate: estimate.host
    return parts


def _publishers(results: Sequence[Result]) -> str:
    """Title of the column of published figures."""
    from gemmaq.vram.published import publishers

    sizes = [size for result in results if (size := size_by_name(result.build.model.name))]
    return f"{publishers(sizes)}\nBF16 → 4 bit"


def _show_notes(results: Sequence[Result], unit: str, size: int) -> None:
    overhead = results[0].estimate.overhead
    if overhead:
        console.out(f"Totals include {overhead / size:.2f} {unit} of overhead for the driver, a round figure.")
    if any(result.estimate.host for result in results):
        console.out("Host RAM comes on top: what is looked up in tables, logits, scratch.")
    if any(r.build.model.towers_config and not r.load.vision and r.engine.supports_vision for r in results):
        console.say("Text only; --vision adds the towers for images and sound.")
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
    shown = short_names(result.build.model.name for result in results)
    names = ["", "type", *(["embd"] if embeddings else []), *(["context"] if contexts else [])]
    leads = [
        [
            shown[result.build.model.name],
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
    console.table("On these cards", columns, rows, left=len(names) + 2, spare=("largest\ntype", "usable\nGiB"))


def _verdict(fit: Fit) -> str:
    gib = abs(fit.room) / _GIB
    return f"fits, {gib:.2f} GiB free" if fit.fits else f"too large by {gib:.2f} GiB"


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
    shown = short_names(models)
    embeddings = len(chosen) > len({(name, quant) for name, quant, _ in chosen})
    lines = []
    for (name, quant, embedding), result in chosen.items():
        label = quant if len(models) == 1 else f"{shown[name]} {quant}"
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
