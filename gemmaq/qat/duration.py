"""How long a training takes here, by the time of one layer and of the head."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gemmaq.calibration.sensitivity_groups import active
from gemmaq.inference.batch import Batch, joined
from gemmaq.qat import blockwise, model, trainer, whole_model
from gemmaq.qat.evaluation import Meter, together

if TYPE_CHECKING:
    import torch
    from torch import nn

    from gemmaq.inference.decoder import Decoder
    from gemmaq.inference.distributed import ProcessGroup
    from gemmaq.qat.data import TokenDataset
    from gemmaq.qat.job import TrainingJob

_PART = 8
"""The part of the vocabulary that metrics are timed on is one in so many."""
_ENOUGH = 0.5
"""Seconds that a function is timed for at least, or twice."""
_LONG = 2.0
"""Seconds beyond which a function is not run again."""
_WEIGHT, _EMBEDDING = 24, 8
"""Bytes of a weight of the layer that is timed, and of one of an embedding that is trained, besides its BF16."""


@dataclass(frozen=True, slots=True)
class Duration:
    """How long a training takes.

    Attributes:
        step: seconds of an optimizer step, of one layer if layers are trained one at a time.
        beside: seconds of everything but the steps: loading, measuring, the outputs of layers.
        layers: number of layers that are trained one after the other, 1 if all are trained together.
    """

    step: float
    beside: float
    layers: int

    def seconds(self, steps: int) -> float:
        """Seconds of a training with so many steps."""
        return self.beside + self.layers * steps * self.step

    def steps(self, seconds: float) -> int:
        """Steps that a training makes in a time, of each layer if layers are trained one at a time.

        There are always as many as it takes to know their speed, and one more.
        """
        left = (seconds - self.beside) / trainer.SAFETY
        return max(trainer.MEASURED + 1, int(left / (self.layers * self.step)))


@dataclass(frozen=True, slots=True)
class _Layer:
    """Seconds that a layer takes.

    Attributes:
        load: to read it, for teacher and student.
        teacher: forward through the teacher's, for a batch of the training; 0 if layers are trained one at a time.
        trained: forward and backward through the student's, for the same batch.
        measured: forward through teacher's and student's, for a batch of the measurement.
        update: to clip gradients and change weights, for each trained weight.
    """

    load: float
    teacher: float
    trained: float
    measured: tuple[float, float]
    update: float


def memory(job: TrainingJob) -> int:
    """Bytes that it takes to time a layer and the head, roughly."""
    config, settings = job.source.config, job.settings
    embedding = job.source.embedding.elements * (2 + (_EMBEDDING if settings.embedding else 0))
    tokens = max(settings.batch * settings.context, together(settings.batch, settings.context) * settings.context)
    widest = max(layer.ffn for layer in config.layers)
    activations = 4 * tokens * (24 * config.hidden_size + 8 * widest) + (1 << 23) * 20
    return _WEIGHT * max(config.layer_parameters) + embedding + activations


def measure(job: TrainingJob, data: TokenDataset, group: ProcessGroup, trained: int) -> Duration | None:
    """Time a layer and the head on tokens of the text; None if there is no memory here for it.

    Not counted are what processes send each other, noise for a source that was quantized before, the choice of the
    teacher's samples, saved states, and writing. A student that begins from another checkpoint counts as one that
    begins from the source.

    Args:
        job: the training.
        data: its text.
        group: processes that share a batch.
        trained: number of trained weights.

    Raises:
        InputError: the weights cannot be read.
    """
    import torch

    from gemmaq.inference.device import free_memory

    free = free_memory(group.device)
    if free is not None and memory(job) > free:
        return None
    try:
        return _measured(job, data, group, trained)
    except torch.OutOfMemoryError:
        return None


def _measured(job: TrainingJob, data: TokenDataset, group: ProcessGroup, trained: int) -> Duration:
    from gemmaq.inference.decoder import decoder
    from gemmaq.inference.device import Device

    settings, held_out = job.settings, len(data.held_out)
    at_once = blockwise.TOGETHER if job.block_wise else together(settings.batch, settings.context)
    with decoder(job.source, Device(group.device, None)) as source:
        batch = _batch(source, data, max(1, settings.batch // group.size))
        layer = _layer(job, source, batch, _batch(source, data, at_once), group.size)
        work = active(job.source)
        layers = sum(each / work[0] for each in work)
        rows = model.embedding(source)
        metrics = 2 * held_out / at_once * _metrics(job, rows, at_once * settings.context)
        teacher, student = layer.measured
        update = layer.update * trained / group.size
        if job.block_wise:
            sequences = min(blockwise.SEQUENCES, len(data.train)) + held_out
            forward = (sequences * (teacher + student) + held_out * student) / at_once
            step = (settings.accumulate * layers * layer.trained + update) / len(work)
            return Duration(step, layers * (layer.load + forward) + metrics, len(work))
        head = _head(job, data, rows, batch)
    in_step = 0.0 if settings.samples else layer.teacher
    recomputed = layer.trained / 3 if settings.recompute else 0.0
    step = settings.accumulate * (layers * (in_step + layer.trained + recomputed) + head) + update
    beside = layers * (layer.load + held_out / at_once * (teacher + 2 * student)) + metrics
    if settings.samples:
        beside += len(data.train) / settings.batch * (layers * layer.teacher + head / 3)
    return Duration(step, beside, 1)


def _batch(source: Decoder, data: TokenDataset, sequences: int) -> Batch:
    """Sequences of the text at the first layer, repeated if there are fewer."""
    return joined(source.embed(np.resize(data.train, (sequences, data.train.shape[1]))))


def _layer(job: TrainingJob, source: Decoder, batch: Batch, measured: Batch, processes: int) -> _Layer:
    """Time the first layer."""
    import torch

    settings, device = job.settings, batch.hidden.device
    of_teacher, of_student = model.specs(settings)
    teacher = model.layer(source, 0, of_teacher)  # the first time modules are imported
    begun = time.monotonic()
    student = model.layer(source, 0, of_student)
    load = 2 * (time.monotonic() - begun)
    forward = blockwise.forward_of(source, 0, settings)
    parameters = model.trained(student)
    optimizer = trainer.adamw(parameters, settings, processes)
    batch.hidden.requires_grad_(not job.block_wise)  # as of a layer that others are before

    def train() -> None:
        forward(student, batch).float().pow(2).mean().backward()  # type: ignore[no-untyped-call]

    def update() -> None:
        torch.nn.utils.clip_grad_norm_(list(parameters.values()), settings.clip)
        optimizer.step()

    def run(module: nn.Module, sequences: Batch) -> float:
        with torch.no_grad():
            return _seconds(lambda: forward(module, sequences), device)

    trained = _seconds(train, device)
    weights = sum(parameter.numel() for parameter in parameters.values())
    return _Layer(
        load=load,
        trained=trained,
        update=_seconds(update, device) / weights,
        teacher=0.0 if job.block_wise else run(teacher, batch),
        measured=(run(teacher, measured), run(student, measured)),
    )


def _head(job: TrainingJob, data: TokenDataset, rows: torch.Tensor, batch: Batch) -> float:
    """Seconds of the loss and its gradient behind the last layer, for a batch."""
    import torch
    from torch import nn

    settings = job.settings
    trained = nn.Parameter(rows.float()) if settings.embedding else rows
    head = whole_model.head_of(job.source.config, settings, data, rows, shared=not settings.embedding)
    theirs = batch.hidden.detach().flatten(0, 1)
    ours = theirs.clone().requires_grad_()
    shape = (len(ours), min(settings.samples, head.width))
    ids, shares = torch.zeros(shape, dtype=torch.long, device=ours.device), torch.rand(shape, device=ours.device)

    def loss() -> None:
        student_rows = head.rows_of(trained)
        if settings.samples:
            total = head.sampled_divergence(ours, ids, shares, student_rows=student_rows)
        else:
            total = head.divergence(ours, theirs, student_rows=student_rows, teacher_rows=head.rows_of(rows))
        total.backward()

    return _seconds(loss, ours.device)


def _metrics(job: TrainingJob, rows: torch.Tensor, tokens: int) -> float:
    """Seconds of the metrics of so many tokens over the whole vocabulary."""
    import torch

    part, hidden = rows[: -(-len(rows) // _PART)], torch.randn(1, tokens, rows.shape[1], device=rows.device)
    ids = torch.zeros(1, tokens, dtype=torch.long, device=rows.device)
    dtype = torch.bfloat16 if job.block_wise else model.specs(job.settings)[0].dtype
    meter = Meter(job.source.config.final_logit_softcapping, dtype)

    def add() -> None:
        meter.add(ids, student=hidden, teacher=hidden, student_rows=part, teacher_rows=part)

    with torch.no_grad():
        return _seconds(add, rows.device) * len(rows) / len(part)


def _seconds(function: Callable[[], object], device: torch.device) -> float:
    """The mean of several runs after one that is not counted; of a long function the time of that one."""
    import torch

    def run() -> None:
        function()
        if device.type != "cpu":
            torch.accelerator.synchronize(device)

    begun = time.monotonic()
    run()
    if (first := time.monotonic() - begun) > _LONG:
        return first
    runs, begun = 0, time.monotonic()
    while runs < 2 or time.monotonic() - begun < _ENOUGH:
        run()
        runs += 1
    return (time.monotonic() - begun) / runs
