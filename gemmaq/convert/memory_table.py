"""Memory of a model for its card: by context, and on which cards it fits, in the engine that runs its container."""

from __future__ import annotations

from dataclasses import replace

from gemmaq import vram
from gemmaq.artifact import card
from gemmaq.artifact.description import Model
from gemmaq.artifact.footprint import Footprint, Memory
from gemmaq.models.towers_config import senses
from gemmaq.vram import Engine, Load, cards, fit
from gemmaq.vram.weights import Build

_CONTEXTS = (4096, 8192, 32768, 131072)
_IN_BRIEF = (8192, 32768)
_CARDS_GB = (8, 12, 16, 24)
_MACS_GB = (8, 16, 24, 32)
_GB = 1e9


_FALLS = (
    "Compute is what the peak takes beyond the cache in its final size, which it has only at the end of a prompt: so "
    "compute may fall with the context, while the total does not."
)


def memory_table(model: Model) -> str:
    """A sentence and a table in Markdown, GB by part and context; a sentence for a model without a cache of its own."""
    if model.family.embeds or model.family.drafts:
        keeps = "reads the cache of its target" if model.family.drafts else "keeps no cache of keys and values"
        return f"Its weights take {model.weights / _GB:.2f} GB of memory; it {keeps}."
    engine = vram.find(model.container.engine)
    columns = ["context", "weights", "KV cache", "compute", "overhead", "total"]
    builds = [(_build(model), False)]
    towers = model.towers_config if engine.supports_vision else None
    if towers is not None:
        columns.append(f"with {senses(towers)}")
        builds.append((_with_towers(model), True))
    if model.drafter is not None and engine.drafts:
        columns.append("and with the drafter" if towers is not None else "with the drafter")
        builds.append((replace(builds[-1][0], drafter=_build(model.drafter)), towers is not None))
    cache = (engine.kv_default, engine.kv_default)
    rows, computing = [], []
    for context in _contexts(model, _CONTEXTS):
        text, *more = (vram.estimate(engine, build, Load(context, cache, vision=sees)) for build, sees in builds)
        figures = (text.weights, text.kv, text.compute, text.overhead, text.total, *(each.total for each in more))
        computing.append(text.compute)
        rows.append((f"{context:,}", *(f"{figure / _GB:.2f}" for figure in figures)))
    title = f"Memory in {engine.title}, GB, {engine.kv_default} cache, estimated by `gemmaq estimate-vram`:"
    falls = computing != sorted(computing)
    return title + "\n\n" + card.table(columns, rows) + (f"\n\n{_FALLS}" if falls else "")


def footprint(model: Model) -> Footprint:
    """What `gemmaq estimate-vram` says of a model's files without further options, and the cards that it fits."""
    if model.family.embeds or model.family.drafts:
        return Footprint()
    engine = vram.find(model.container.engine)
    sees = _loads_towers(model, engine)
    build = Build(model.body, "", _with_towers(model) if sees else _build(model))
    load = Load(1, (engine.kv_default, engine.kv_default), vision=sees)
    loads = {context: replace(load, context=context) for context in _contexts(model, _IN_BRIEF)}
    return Footprint(
        engine.title,
        {context: vram.estimate(engine, build.model, load).total for context, load in loads.items()},
        {
            name: frozenset(context for context, load in loads.items() if fit.room(engine, build, load, place) >= 0)
            for name, place in _places(engine).items()
        },
        with_towers=sees,
        holds=holds(model),
    )


def holds(model: Model) -> dict[str, int]:
    """Name of a card -> bytes of the weights that it holds at 8K tokens, were the model of another type."""
    engine = vram.find(model.container.engine)
    sees = _loads_towers(model, engine)
    build = Build(model.body, "", _with_towers(model) if sees else _build(model))
    load = Load(min(_contexts(model, _IN_BRIEF)), (engine.kv_default, engine.kv_default), vision=sees)
    places = {**_places(engine), **({"6 GB": cards.find("6GB")} if engine.container != "mlx" else {})}
    rooms = {name: model.weights + fit.room(engine, build, load, place) for name, place in places.items()}
    return {name: room for name, room in sorted(rooms.items(), key=lambda pair: pair[1]) if room > 0}


MEMORY = Memory(footprint, memory_table)
"""What cards say of memory."""


def _places(engine: Engine) -> dict[str, cards.Card]:
    """Cards to fit a model on, or Macs for MLX, by the name that the model card has for them."""
    if engine.container == "mlx":
        return {f"{size} GB Mac": cards.apple("Mac", size << 30) for size in _MACS_GB}
    return {f"{size} GB": cards.find(f"{size}GB") for size in _CARDS_GB}


def _contexts(model: Model, wanted: tuple[int, ...]) -> list[int]:
    """Those of some contexts that the model has, or its longest."""
    longest = model.config.max_position_embeddings
    return [context for context in wanted if context <= longest] or [longest]


def _loads_towers(model: Model, engine: Engine) -> bool:
    """Whether the engine loads the towers of these files unless told otherwise."""
    by_itself = engine.vision_by_default or model.parts.projector is not None
    return model.towers_config is not None and engine.supports_vision and by_itself


def _build(model: Model) -> vram.Model:
    """The text side of a model as an engine holds it."""
    return vram.Model(model.name, model.config, model.weights, model.embedding, layer_table=model.layer_table)


def _with_towers(model: Model) -> vram.Model:
    return replace(_build(model), towers=model.towers, towers_config=model.towers_config)
