"""Training one decoder layer at a time: memory holds one layer and the activations, whatever the model's size.

Each layer learns to reproduce the teacher's outputs from the outputs of the trained layers before it. Source of the
idea: EfficientQAT, arXiv 2407.11062, Block-AP.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gemmaq.calibration import PROGRAM
from gemmaq.files import sealed
from gemmaq.inference.batch import Batch, held, joined
from gemmaq.inference.distributed import assign
from gemmaq.qat import grids, model, trainer
from gemmaq.qat import state as states
from gemmaq.qat.data import MOST_HELD_OUT
from gemmaq.qat.evaluation import Evaluation, Meter
from gemmaq.qat.trainer import Schedule, Trainer

if TYPE_CHECKING:
    import torch
    from torch import nn

    from gemmaq.checkpoint import Checkpoint
    from gemmaq.inference.decoder import Decoder
    from gemmaq.qat.job import Session, Weights
    from gemmaq.qat.settings import Settings

_Forward = Callable[["nn.Module", "Batch"], "torch.Tensor"]
SEQUENCES = 128
"""Sequences of the text that layers are trained on, at most."""
TOGETHER = 4
"""Sequences per forward pass without gradients."""
BUDGET = 0.9
"""Share of the time budget that goes to the layers; the rest is for measuring and writing."""


def memory(source: Checkpoint, settings: Settings, train: int = SEQUENCES, held_out: int = MOST_HELD_OUT) -> int:
    """Peak bytes at most: a layer with its gradients and moments, activations, the embedding.

    Args:
        source: the teacher.
        settings: hyperparameters.
        train: sequences of the text to train on; more than the most that are used count as these.
        held_out: sequences that are held out.
    """
    config = source.config
    layer = max(config.layer_parameters)
    heads = max(layer.query_width + layer.kv_width for layer in config.layers)
    ffn = max(layer.ffn for layer in config.layers)
    sequences = min(SEQUENCES, train) + held_out
    activations = 4 * settings.context * config.hidden_size * (2 * sequences + held_out)
    tokens = settings.batch * settings.context
    inside = 4 * tokens * (24 * config.hidden_size + 8 * ffn + 6 * heads)
    inside += 16 * settings.batch * max(layer.heads for layer in config.layers) * settings.context**2
    head = 2 * config.vocab_size * config.hidden_size + (1 << 23) * 20
    beside = 4 * held(config, settings.context * (2 * sequences + held_out))
    return PROGRAM + 24 * layer + activations + beside + inside + head


@dataclass(slots=True)
class _Activations:
    """Inputs of the current layer, a batch per sequence; those to train on come first.

    Keys and values that later layers share are those of the same model, and no gradient reaches them.

    Attributes:
        teacher: in the unquantized model.
        student: in the trained model.
        untrained: in the model quantized without training, held-out sequences only.
    """

    teacher: list[Batch]
    student: list[Batch]
    untrained: list[Batch]


def train(session: Session) -> tuple[Evaluation, Weights]:
    """Train layer by layer, and measure; errors are those of `whole_model.train`."""
    data, source = session.data, session.teacher
    count = min(SEQUENCES, len(data.train))
    chosen = data.train[np.linspace(0, len(data.train) - 1, count).round().astype(int)]
    embedded = [part for batch in source.embed(np.concatenate([chosen, data.held_out])) for part in batch.split()]
    activations = _Activations(list(embedded), list(embedded), list(embedded[count:]))
    gc.collect()
    gc.freeze()  # a tokenizer's many objects are not looked through after every layer
    try:
        for index in range(source.layers):
            _layer(session, index, activations, count)
    finally:
        gc.unfreeze()
    before, after = (
        _evaluate(session, task, activations.teacher[count:], student)
        for task, student in (
            ("measuring without training", activations.untrained),
            ("measuring after training", activations.student[count:]),
        )
    )
    session.state.before = before.document()
    return after, _stored(session)


def _layer(session: Session, index: int, activations: _Activations, count: int) -> None:
    """Train a layer, or load it if an earlier run has trained it; then replace its inputs by its outputs.

    Args:
        session: the training.
        index: number of the layer.
        activations: inputs of the layer.
        count: sequences to train on.
    """
    import torch

    state, begun = session.state, time.monotonic()
    forward = forward_of(session.teacher, index, session.job.settings)
    name = f"layer {index + 1} of {session.teacher.layers}"
    teacher_spec, student_spec = model.specs(session.job.settings)
    inputs = list(activations.student[:count])
    with torch.no_grad():
        teacher = model.layer(session.teacher, index, teacher_spec)
        _advance(forward, teacher, activations.teacher, session.callbacks.phase("running the teacher's layer"))
        del teacher
        gc.collect()
        student = model.layer(session.initial, index, student_spec, session.warm_start)
        _advance(forward, student, activations.untrained)
    parameters = model.trained(student)
    if index < state.layer:
        shapes = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
        for name, values in states.read_tensors(states.layer_file(session.work, index), shapes):
            assign(parameters[name], values)
    else:
        session.callbacks.say(name)
        loop = Trainer(
            settings=session.job.settings,
            group=session.group,
            parameters=parameters,
            optimizer=trainer.adamw(parameters, session.job.settings, session.group.size),
            batches=_losses(session, index, partial(forward, student), inputs, activations.teacher[:count]),
            terms=1.0,
            label=f"{name}: ",
        )
        _train(session, index, loop, begun)
        path = states.layer_file(session.work, index)
        _write(loop, model.scales(student), path)
        state.trained.append(sealed.digest(path))
        state.layer, state.step, state.steps = index + 1, 0, session.job.planned_steps
        states.save(session.work, state, {}, loop.fetch, True)
    with torch.no_grad():
        _advance(forward, student, activations.student, session.callbacks.phase("running the trained layer"))


def _train(session: Session, index: int, loop: Trainer, begun: float) -> None:
    """Train one layer within its share of the time budget."""
    job, state, now = session.job, session.state, time.monotonic()
    layers = session.teacher.layers - index
    if session.saved is not None and state.step:
        loop.restore(session.saved, state.step)
        session.callbacks.say(f"resuming from step {state.step} of layer {index + 1}")
    schedule = Schedule(
        work=session.work,
        started=session.started,
        minutes=job.minutes,
        deadline=None if session.deadline is None else begun + BUDGET * (session.deadline - begun) / layers,
        reserve=now - begun,  # the outputs of the trained layer take as long as those of the teacher
        late="fit" if job.steps is None else "stop" if state.losses else "refuse",
        save_steps=job.save_steps,
        save_seconds=60 * job.save_minutes,
        layers=layers,
    )
    trainer.train(loop, state, schedule, session.callbacks)


def forward_of(decoder: Decoder, index: int, settings: Settings) -> _Forward:
    """The forward pass of a layer: module and batch -> its outputs, [batch, length, hidden]."""
    import torch

    dtype = {"bf16": torch.bfloat16, "f32": torch.float32}[settings.dtype]

    def forward(module: nn.Module, batch: Batch) -> torch.Tensor:
        with torch.autocast(batch.hidden.device.type, dtype, enabled=dtype != torch.float32):
            return decoder.forward(module, index, batch)

    return forward


def _advance(
    forward: _Forward,
    module: nn.Module,
    sequences: list[Batch],
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> None:
    """Replace the inputs of a layer by its outputs, a few sequences at a time."""
    for first in range(0, len(sequences), TOGETHER):
        progress(first, len(sequences))
        batch = joined(sequences[first : first + TOGETHER])
        batch.hidden = forward(module, batch).float()
        sequences[first : first + TOGETHER] = batch.split()
    progress(len(sequences), len(sequences))


def _losses(
    session: Session,
    index: int,
    student: Callable[[Batch], torch.Tensor],
    inputs: list[Batch],
    targets: list[Batch],
) -> Callable[[int], Iterator[torch.Tensor]]:
    """The loss as the trainer takes it: step number -> share of each batch in the step's mean squared error.

    The error is relative to the mean squared difference between the teacher's inputs and outputs.
    """
    import torch

    settings = session.job.settings
    pairs = zip(targets, inputs, strict=True)
    scale = sum(float((after.hidden - before.hidden).pow(2).mean()) for after, before in pairs)
    scale = max(scale / len(inputs), 1e-12)

    def losses(step: int) -> Iterator[torch.Tensor]:
        random = np.random.default_rng([settings.seed, index])
        drawn = random.integers(0, len(inputs), (step + 1, settings.sequences))[step]
        for first in range(0, len(drawn), settings.batch):
            batch = drawn[first : first + settings.batch]
            output = student(joined([inputs[at] for at in batch]))
            target = torch.cat([targets[at].hidden for at in batch])
            yield (output.float() - target).pow(2).mean() / scale * (len(batch) / len(drawn))

    return losses


def _write(loop: Trainer, scales: dict[str, torch.Tensor], path: Path) -> None:
    """Write a trained layer, its matrices on their grid.

    Raises:
        OutputError: it cannot be written.
    """
    grid, stage = grids.find(loop.settings.grid), path.with_suffix(".partial")
    shapes = {name: tuple(parameter.shape) for name, parameter in loop.parameters.items()}
    arrays = (grids.stored(loop.parameters[name].detach(), grid, scales.get(name)) for name in shapes)
    try:
        states.write_tensors(stage, shapes, arrays)
        stage.rename(path)
    except OSError as error:
        stage.unlink(missing_ok=True)
        raise states.save_error(error, path.parent) from error


def _evaluate(session: Session, task: str, teacher: list[Batch], student: list[Batch]) -> Evaluation:
    """Held-out metrics of outputs of the last layer, a batch per sequence."""
    import torch

    source, tokens = session.teacher, session.data.held_out
    meter = Meter(source.checkpoint.config.final_logit_softcapping, torch.bfloat16)
    rows, progress = model.embedding(source), session.callbacks.phase(task)
    with torch.no_grad():
        for number, sequence in enumerate(tokens):
            progress(number, len(tokens))
            ids = torch.from_numpy(sequence[None]).to(rows.device)
            ours, theirs = (source.normed(batches[number].hidden) for batches in (student, teacher))
            meter.add(ids, student=ours, teacher=theirs, student_rows=rows, teacher_rows=rows)
    progress(len(tokens), len(tokens))
    return meter.result()


def _stored(session: Session) -> Weights:
    """The weights of all trained layers by canonical name."""
    for index in range(session.teacher.layers):
        for name, values in states.read_tensors(states.layer_file(session.work, index)):
            yield model.canonical(f"layers.{index}.{name}", session.job.source.family), values.numpy()
