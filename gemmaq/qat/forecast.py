"""Forecast of a training: parameters, tokens, time, memory and disk space."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gemmaq.models.roles import Role
from gemmaq.qat import blockwise, duration
from gemmaq.qat.dither import on_lattice

if TYPE_CHECKING:
    from gemmaq.checkpoint import Checkpoint
    from gemmaq.inference.distributed import ProcessGroup
    from gemmaq.qat.data import TokenDataset
    from gemmaq.qat.job import TrainingJob
    from gemmaq.qat.settings import Settings

_LATENT = 16
"""Bytes per trained weight: the weight, its gradient and two moments in f32."""
_BESIDE = (Role.LAYER_EMBEDDING, Role.LAYER_PROJECTION)
"""Roles of tensors that teacher and student hold in BF16 besides their layers, rows of the text's tokens at most."""
_KEPT = 34
"""Activations that a layer keeps for the backward pass, as multiples of its hidden size per token; measured."""


def forecast(job: TrainingJob, data: TokenDataset, group: ProcessGroup, started: float) -> dict[str, Any]:
    """The forecast as JSON values, for a training from the beginning; a layer is timed for it.

    With a time budget and no number of steps, `steps` is None and `steps_that_fit` a number. Where a layer cannot be
    timed, nothing is known of the time.

    Args:
        job: the training.
        data: its text.
        group: processes that take part.
        started: time of the command's start on the monotonic clock, s.

    Raises:
        InputError: the source cannot be read.
    """
    source, settings, trained = job.source, job.settings, _trained(job)
    dithered = len(on_lattice(source)) if settings.dither else 0
    begun = time.monotonic() - started
    took, steps = duration.measure(job, data, group, trained), job.planned_steps
    fit = None
    if took is not None and steps is None:
        share = blockwise.BUDGET if job.block_wise else 1.0
        fit = took.steps(60 * (job.minutes or 0) * share - begun)
    return {
        "path": str(job.out),
        "trained": trained,
        "parameters": source.parameters,
        "steps": steps,
        "steps_that_fit": fit,
        "minutes": job.minutes,
        "seconds_per_step": None if took is None else took.step,
        "seconds": None if took is None else begun + took.seconds(steps or fit or 0),
        "tokens_per_step": settings.tokens,
        "train_sequences": len(data.train),
        "held_out_sequences": len(data.held_out),
        "dithered": dithered,
        "block_wise": job.block_wise,
        "memory_bytes": memory_of(job, data),
        "state_bytes": 12 * trained,
        "artifact_bytes": 2 * source.parameters,
    }


def memory_of(job: TrainingJob, data: TokenDataset) -> int:
    """Peak bytes of a training on this text."""
    if job.block_wise:
        return blockwise.memory(job.source, job.settings, len(data.train), len(data.held_out))
    return memory(job.source, job.settings)


def _trained(job: TrainingJob) -> int:
    """Number of trained weights."""
    source, settings = job.source, job.settings
    final = source.final_norm.elements
    norms = final + sum(
        tensor.elements
        for tensor in source.tensors.values()
        if tensor.place.role == Role.NORM and tensor.place.layer is not None
    )
    embedding = source.embedding.elements
    matrices = sum(source.config.layer_parameters)
    return matrices + (norms if settings.norms else 0) + (embedding if settings.embedding else 0)


def memory(source: Checkpoint, settings: Settings) -> int:
    """Peak bytes of training a whole model, roughly: weights, gradients, moments, activations, logits."""
    config = source.config
    weights = sum(config.layer_parameters)
    embedding = source.embedding.elements
    networks = (_LATENT + 2) * weights + (2 + (_LATENT if settings.embedding else 0)) * embedding
    tokens = settings.batch * settings.context
    wide = 3 * max(layer.ffn for layer in config.layers) / config.hidden_size
    layer = tokens * config.hidden_size * 4 * (_KEPT / 2 + wide * 2)
    activations = layer * (1 if settings.recompute else config.num_hidden_layers)
    width = min(settings.vocabulary or config.vocab_size, config.vocab_size)
    logits = 6 * 4 * min(tokens * width, 1 << 23)
    beside = sum(tensor.elements for tensor in source.tensors.values() if tensor.place.role in _BESIDE)
    return int(networks + 2 * weights + 4 * beside + activations + logits + (1 << 29))


def lines(
    facts: dict[str, Any], size: Callable[[float], str], spell: Callable[[float], str], *, resumed: bool
) -> list[str]:
    """The forecast as lines of text.

    Args:
        facts: result of `forecast`.
        size: formats a number of bytes.
        spell: formats a number of seconds.
        resumed: whether the training goes on from a saved state.
    """
    steps, fit, each, minutes = facts["steps"], facts["steps_that_fit"], facts["tokens_per_step"], facts["minutes"]
    planned = f"{steps:,} steps" if steps else f"as many steps as {minutes:g} minutes allow"
    planned += f", here about {fit:,}" if fit else ""
    planned += " per layer" if facts["block_wise"] else ""
    total = f", {steps * each:,} tokens in all" if steps and not facts["block_wise"] else ""
    mode = "one layer at a time" if facts["block_wise"] else "all layers together"
    artifact, state = size(facts["artifact_bytes"]), size(2 * facts["state_bytes"])
    return [
        f"trained   {facts['trained']:,} of {facts['parameters']:,} weights, {mode}",
        f"steps     {planned}, {each:,} tokens each{total}",
        f"time      {_time(facts, spell)}{' from the beginning' if resumed else ''}",
        f"text      {facts['train_sequences']:,} sequences to train on, {facts['held_out_sequences']:,} held out",
        *([f"dither    {facts['dithered']} matrices were quantized before"] if facts["dithered"] else []),
        f"memory    about {size(facts['memory_bytes'])}",
        f"disk      {artifact} in {facts['path']}, plus up to {state} while training",
    ]


def _time(facts: dict[str, Any], spell: Callable[[float], str]) -> str:
    """How long it takes, as the end of a line."""
    seconds, minutes = facts["seconds"], facts["minutes"]
    if seconds is None:
        return "not known: there is not enough free memory to time a layer"
    late = f", more than the {minutes:g} minutes allowed" if minutes is not None and seconds > 60 * minutes else ""
    return f"about {spell(seconds)} here, {facts['seconds_per_step']:.2g} s a step{late}"
