"""Memory of a model by context, for its card: estimated for the engine that runs its container."""

from __future__ import annotations

from gemmaq import vram
from gemmaq.artifact import card

_CONTEXTS = (4096, 8192, 32768, 131072)
_GB = 1e9


def memory_table(model: card.Model) -> str:
    """A sentence and a table in Markdown, GB of every part at several contexts."""
    engine = vram.find(model.container.engine)
    tower = model.family.vision.DEFAULT if model.vision else None
    weights = vram.Model(
        model.name, model.config, model.weights, model.embedding, vision=model.vision, vision_config=tower
    )
    has_vision = tower is not None and engine.supports_vision
    cache = (engine.kv_default, engine.kv_default)
    rows = []
    longest = model.config.max_position_embeddings
    for context in [context for context in _CONTEXTS if context <= longest] or [longest]:
        estimate = vram.estimate(engine, weights, vram.Load(context, cache, vision=has_vision))
        parts = (estimate.weights + estimate.vision, estimate.kv, estimate.compute, estimate.overhead, estimate.total)
        rows.append((f"{context:,}", *(f"{part / _GB:.2f}" for part in parts)))
    title = f"Memory in {engine.title}, GB, {engine.kv_default} cache, estimated by `gemmaq estimate-vram`:"
    return title + "\n\n" + card.table(("context", "weights", "KV cache", "compute", "overhead", "total"), rows)
