"""What `gemmaq estimate-vram` says of running a model: what to run on a card, and where its parts lie."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gemmaq.cli import console
from gemmaq.cli.views import estimate_vram as estimates
from gemmaq.models.families import short_names
from gemmaq.planning.losses import TEXT, loss_of

if TYPE_CHECKING:
    from gemmaq.cli.console import Output
    from gemmaq.planning.losses import Loss
    from gemmaq.vram.cards import Card
    from gemmaq.vram.fit import Result
    from gemmaq.vram.placement import Placement
    from gemmaq.vram.ranking import Row

_GIB = 1 << 30
_MOST_ROWS = 10
_METHODS = {"nearest": "nearest", "importance": "imatrix", "gptq": "gptq"}
"""Method -> head of its column."""


def emit_cards(output: Output) -> None:
    """The cards that `--gpu` knows by name, with their memory and what of it models can use."""
    from gemmaq.vram.cards import CARDS

    output.emit(
        lambda: {"cards": [{"name": card.name, "bytes": card.bytes, "usable": card.usable} for card in CARDS.values()]},
        essential=lambda: list(CARDS),
        show=lambda: console.table(
            'Cards and machines for --gpu; any other as 24GB, several as 2x3090 or "4090 + 3060"',
            ("name", "GiB", "usable\nGiB"),
            [(card.name, f"{card.bytes / _GIB:.1f}", f"{card.usable / _GIB:.1f}") for card in CARDS.values()],
        ),
    )


def emit_ranking(output: Output, results: Sequence[Result], groups: Sequence[Sequence[Card]]) -> None:
    """What fits each group of cards, the best first, and the command line of the best; contexts are rows of their own.

    Quiet output is that command line for every group, an empty line where nothing fits.

    Raises:
        UsageError: The engine does not spread models over such cards.
    """
    from gemmaq.vram.ranking import RULE, ranked

    lists = [ranked(results, number, group if len(group) > 1 else ()) for number, group in enumerate(groups)]
    output.emit(
        lambda: {"rule": RULE, "ranking": [_ranked_entry(row, at) for rows in lists for at, row in enumerate(rows, 1)]},
        essential=lambda: [(rows[0].command or "") if rows else "" for rows in lists],
        show=lambda: _show_rankings(results, lists, RULE),
    )


def _ranked_entry(row: Row, rank: int) -> dict[str, Any]:
    entry = estimates.entry(row.result)
    entry["gpus"] = [entry["gpus"][row.card]]
    loss, placement = loss_of(row.result.build.quant), row.placement
    return {
        "rank": rank,
        **entry,
        "bits": round(row.bits, 3),
        "use": row.use,
        "quality": {"kl": dict(loss.kl), "model": loss.model, "text": TEXT} if loss else None,
        "publisher_on_qat": row.on_qat,
        "command": row.command,
        "placement": _entry(row.result, placement) if placement else None,
    }


def _show_rankings(results: Sequence[Result], lists: Sequence[Sequence[Row]], rule: str) -> None:
    shown = short_names(result.build.model.name for result in results)
    contexts = len({result.load.context for result in results}) > 1
    for number, rows in enumerate(lists):
        card = results[0].fits[number].card.name
        if not rows:
            console.out(f"{card}: nothing fits; MODEL --offload puts a part into main memory.")
            continue
        title = f"{card}, {results[0].engine.title}" + (
            "" if contexts else f", {results[0].load.context:,} tokens of context"
        )
        cells = [
            [
                shown[row.result.build.model.name],
                row.result.build.quant,
                f"{row.bits:.1f}",
                f"{row.result.estimate.total / _GIB:.2f}",
                f"{row.fit.room / _GIB:.2f}",
                *([f"{row.result.load.context:,}"] if contexts else []),
                f"{row.fit.max_context:,}",
            ]
            for row in rows[:_MOST_ROWS]
        ]
        heads = ["", "type", "bits", "GiB", "free\nGiB", *(["context"] if contexts else []), "largest\ncontext"]
        console.table(title, heads, cells, left=2, spare=("bits", "free\nGiB"))
        if len(rows) > _MOST_ROWS:
            console.out(f"{len(rows) - _MOST_ROWS} more fit: --json lists them.")
        if command := rows[0].command:
            console.out(command)
    _show_types([row for rows in lists for row in rows[:_MOST_ROWS]])
    console.say(f"Order: {rule}.")
    _say_what_the_cache_costs(results)


def _say_what_the_cache_costs(results: Sequence[Result]) -> None:
    """The note of engines on types of the KV cache that cost quality, once."""
    from gemmaq.vram import kv_costs

    notes = {result.load.kv_types: result.estimate.notes for result in results}
    for kv_types, of_engine in notes.items():
        if (said := kv_costs.warning(kv_types)) in of_engine:
            console.say(f"Note: {said}.")


def _show_types(rows: Sequence[Row]) -> None:
    """What the types of some rows are for, and what they cost where that was measured."""
    if not rows:
        return
    uses = {row.result.build.quant: row.use for row in rows}
    losses = {quant: loss_of(quant) for quant in uses}
    measured = {loss.model for loss in losses.values() if loss}
    cells = [
        [quant, use.split(",")[0], *(_kl(losses[quant], method) for method in _METHODS if measured)]
        for quant, use in uses.items()
    ]
    heads = ["", "is", *(_METHODS.values() if measured else ())]
    console.table("Types" + (", and KL divergence where measured" if measured else ""), heads, cells, left=2, fold=True)
    if measured:
        console.say(f"KL from BF16 on {TEXT}:")
        console.say(f"{'; '.join(sorted(measured, key=len))}. Larger models were not measured.")
    for said in dict.fromkeys(row.on_qat for row in rows if row.on_qat):
        console.say(f"{said}.")


def _kl(loss: Loss | None, method: str) -> str:
    return f"{loss.kl[method]:g}" if loss and method in loss.kl else ""


def emit_placements(
    output: Output,
    results: Sequence[Result],
    groups: Sequence[Sequence[Card]],
    *,
    offload: bool,
    memory: int | None = None,
) -> None:
    """Where the parts of every model lie on each group of cards, and the command line.

    `memory` is the bytes of main memory that there are, None where nobody said.

    Raises:
        UsageError: The engine has no such placement.
    """
    from gemmaq.vram.placement import place

    found = [
        (result, place(result.engine, result.build, result.load, group, offload=offload))
        for result in results
        for group in groups
    ]
    output.emit(
        lambda: {
            "estimates": [{**estimates.entry(result), "placement": _entry(result, at, memory)} for result, at in found]
        },
        essential=lambda: [(_command(result, at) or "") if _fits(at, memory) else "" for result, at in found],
        show=lambda: _show_placements(found, memory),
    )


def _command(result: Result, placement: Placement) -> str | None:
    from gemmaq.vram.commands import command, file_of

    file = file_of(result.engine, result.build.model.name, result.build.quant)
    return command(result.engine, file, result.load, placement, cards=len(placement.devices))


def _entry(result: Result, placement: Placement, memory: int | None = None) -> dict[str, Any]:
    parts = ("layers", "weights", "kv", "compute", "beside", "overhead", "total", "capacity", "room")
    return {
        "fits": _fits(placement, memory),
        "ngl": placement.ngl,
        "n_cpu_moe": placement.cpu_moe,
        "devices": [
            {"name": device.card.name, **{part: getattr(device, part) for part in parts}}
            for device in placement.devices
        ],
        "host": placement.host,
        "ram": memory,
        "command": _command(result, placement),
    }


def _fits(placement: Placement, memory: int | None) -> bool:
    return placement.fits and (memory is None or placement.host <= memory)


def _show_placements(found: Sequence[tuple[Result, Placement]], memory: int | None) -> None:
    for result, placement in found:
        build, load = result.build, result.load
        rows = [
            [
                device.card.name,
                str(device.layers),
                *(f"{size / _GIB:.2f}" for size in (device.weights, device.kv, device.compute, device.beside)),
                f"{device.total / _GIB:.2f}",
                f"{device.room / _GIB:.2f}",
            ]
            for device in placement.devices
        ]
        left = placement.depth - (placement.ngl or 0)
        rows.append(["main memory", str(left), "", "", "", "", f"{placement.host / _GIB:.2f}", ""])
        title = f"{build.model.name} {build.quant} in {result.engine.title}, GiB, {load.context:,} tokens"
        columns = ("", "layers", "weights", "KV", "compute", "vision,\ndrafter", "total", "free")
        console.table(title, columns, rows, spare=("vision,\ndrafter", "layers", "compute"))
        if placement.cpu_moe:
            console.out(f"The experts of the first {placement.cpu_moe} layers lie in main memory.")
        if not placement.fits:
            console.out("It does not fit: --offload puts a part into main memory.")
        elif memory is not None and not _fits(placement, memory):
            missing = (placement.host - memory) / _GIB
            console.out(f"It does not fit: {missing:.2f} GiB more than --ram, choose a smaller type.")
        elif (line := _command(result, placement)) is not None:
            console.out(line)
    _say_what_the_cache_costs([result for result, _ in found])
