"""What a training would do, before it does: parameters, tokens, memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gemmaq.models.roles import Role
from gemmaq.qat import model
from gemmaq.qat.dither import on_lattice

if TYPE_CHECKING:
    from gemmaq.qat.data import Data
    from gemmaq.qat.run import Order

_LATENT = 16
"""Bytes a trained weight takes: itself, its gradient and two moments, f32."""
_KEPT = 34
"""Activations that a layer keeps for the backward pass, in f32 numbers of its hidden size a token; measured."""


def foretell(order: Order, data: Data, block_wise: bool) -> dict[str, Any]:
    """The facts, as `--json` has them.

    Raises:
        InputError: teacher and student differ, or the source cannot be read.
    """
    from gemmaq.qat import grids

    source, settings = order.source, order.settings
    model.check_start(source, order.start or source, grids.find(settings.grid))
    matrices = sum(source.tensors[name].elements for name in model.matrices(source))
    norms = sum(t.elements for t in source.tensors.values() if t.place.role == Role.NORM) if settings.norms else 0
    embedding = source.embedding.elements
    trained = matrices + norms + (embedding if settings.embedding else 0)
    steps = order.steps or (None if order.minutes is not None else settings.steps)
    return {
        "path": str(order.out),
        "trained": trained,
        "parameters": source.parameters,
        "steps": steps,
        "minutes": order.minutes,
        "tokens_per_step": settings.sequences * settings.context,
        "train_sequences": len(data.train),
        "held_out_sequences": len(data.held_out),
        "dithered": len(on_lattice(source)) if settings.dither else 0,
        "block_wise": block_wise,
        "memory_bytes": memory(order, data, block_wise),
        "state_bytes": 12 * trained,
        "artifact_bytes": 2 * source.parameters,
    }


def memory(order: Order, data: Data, block_wise: bool) -> int:
    """Bytes that training takes, roughly: weights, gradients, moments, activations, logits."""
    source, settings = order.source, order.settings
    config = source.config
    if block_wise:
        from gemmaq.qat.blockwise import promise

        return promise(order, data)
    matrices = sum(source.tensors[name].elements for name in model.matrices(source))
    embedding = source.embedding.elements
    held = (_LATENT + 2) * matrices + (2 + (_LATENT if settings.embedding else 0)) * embedding
    tokens = settings.batch * settings.context
    wide = 3 * max(layer.ffn for layer in config.layers) / config.hidden_size
    layer = tokens * config.hidden_size * 4 * (_KEPT / 2 + wide * 2)
    kept = layer * (1 if settings.recompute else config.num_hidden_layers)
    width = min(settings.vocabulary or config.vocab_size, config.vocab_size)
    logits = 6 * 4 * min(tokens * width, 1 << 23)
    return int(held + 2 * matrices + kept + logits + (1 << 29))


def lines(found: dict[str, Any], size: Callable[[float], str]) -> list[str]:
    """The same for people."""
    steps = f"{found['steps']:,} steps" if found["steps"] else f"as many steps as {found['minutes']:g} minutes allow"
    seen = f", {found['steps'] * found['tokens_per_step']:,} tokens in all" if found["steps"] else ""
    kind = "a layer at a time" if found["block_wise"] else "all layers together"
    return [
        f"trained   {found['trained']:,} of {found['parameters']:,} weights, {kind}",
        f"steps     {steps} of {found['tokens_per_step']:,} tokens{seen}",
        f"text      {found['train_sequences']:,} sequences to train on, {found['held_out_sequences']:,} held out",
        *([f"dither    {found['dithered']} matrices were quantized before"] if found["dithered"] else []),
        f"memory    about {size(found['memory_bytes'])}",
        f"disk      {size(found['artifact_bytes'])} in {found['path']}, beside it twice {size(found['state_bytes'])}",
    ]
