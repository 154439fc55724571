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
        """Steps that fit into a time; of each layer if layers are trained one at a time."""
        return max(0, int((seconds - self.beside) / (self.layers * self.step)))


@dataclass(frozen=True, slots=True)
class _Layer:
    """Seconds that a layer takes.

    Attributes:
        load: to read it, for teacher and student.
        teacher: forward through the teacher's, for a batch of the training.
        trained: forward and backward through the student's, for the same batch.
        measured: forward through teacher's and student's, for a batch of the measurement.
        optimizer: the optimizer's, for each trained weight.
    """

    load: float
    teacher: float
    trained: float
    measured: tuple[float, float]
    optimizer: float


def measure(job: TrainingJob, data: TokenDataset, group: ProcessGroup, trained: int) -> Duration:
    """Time a layer and the head on tokens of the text.

    What processes send each other, noise for a source that was quantized before, and writing are not counted.

    Args:
        job: the training.
        data: its text.
        group: processes that share a batch.
        trained: number of trained weights.

    Raises:
        InputError: the weights cannot be read.
    """
    from gemmaq.inference.decoder import decoder
    from gemmaq.inference.device import Device

    settings, held_out = job.settings, len(data.held_out)
    at_once = blockwise.TOGETHER if job.block_wise else together(settings.batch, settings.context)
    with decoder(job.source, Device(group.device, None)) as source:
        batch = _batch(source, data, max(1, settings.batch // group.size))
        layer = _layer(job, source, batch, _batch(source, data, at_once))
        work = active(job.source)
        layers = sum(each / work[0] for each in work)
        rows = model.embedding(source)
        metrics = 2 * held_out / at_once * _metrics(source, rows, at_once * settings.context)
        teacher, student = layer.measured
        if job.block_wise:
            sequences = min(blockwise.SEQUENCES, len(data.train)) + held_out
            forward = (sequences * (teacher + student) + held_out * student) / at_once
            step = settings.accumulate * layer.trained + layer.optimizer * trained / len(work)
            return Duration(step * layers / len(work), layers * (layer.load + forward) + metrics, len(work))
        head = _head(job, data, rows, batch)
    in_step = 0.0 if settings.samples else layer.teacher
    recomputed = layer.trained / 3 if settings.recompute else 0.0
    step = settings.accumulate * (layers * (in_step + layer.trained + recomputed) + head) + layer.optimizer * trained
    beside = layers * (layer.load + held_out / at_once * (teacher + 2 * student)) + metrics
    if settings.samples:
        beside += len(data.train) / settings.batch * (layers * layer.teacher + head / 3)
    return Duration(step, beside, 1)


def _batch(source: Decoder, data: TokenDataset, sequences: int) -> Batch:
    """Sequences of the text at the first layer, repeated if there are fewer."""
    return joined(source.embed(np.resize(data.train, (sequences, data.train.shape[1]))))


def _layer(job: TrainingJob, source: Decoder, batch: Batch, measured: Batch) -> _Layer:
    """Time the first layer."""
    import torch

    settings, (of_teacher, of_student) = job.settings, model.specs(job.settings)
    teacher = model.layer(source, 0, of_teacher)  # the first time modules are imported
    begun = time.monotonic()
    student = model.layer(source, 0, of_student)
    load = 2 * (time.monotonic() - begun)
    forward = blockwise.forward_of(source, 0, settings)
    parameters = model.trained(student)
    optimizer = trainer.adamw(parameters, settings, 1)

    def train() -> None:
        forward(student, batch).float().pow(2).mean().backward()  # type: ignore[no-untyped-call]

    backward = _seconds(train, batch.hidden.device)
    stepped = _seconds(optimizer.step, batch.hidden.device)

    def run(module: nn.Module, sequences: Batch) -> float:
        with torch.no_grad():
            return _seconds(lambda: forward(module, sequences), sequences.hidden.device)

    weights = sum(parameter.numel() for parameter in parameters.values())
    return _Layer(
        load=load,
        teacher=run(teacher, batch),
        trained=backward,
        measured=(run(teacher, measured), run(student, measured)),
        optimizer=stepped / weights,
    )


def _head(job: TrainingJob, data: TokenDataset, rows: torch.Tensor, batch: Batch) -> float:
    """Seconds of the loss and its gradient behind the last layer, for a batch."""
    import torch
    from torch import nn

    settings = job.settings
    trained = nn.Parameter(rows.float()) if settings.embedding else rows
    head = whole_model.head_of(job.source.config, settings, data, rows, shared=not settings.embedding)
    theirs = batch.hidden.flatten(0, 1)
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


def _metrics(source: Decoder, rows: torch.Tensor, tokens: int) -> float:
    """Seconds of the metrics of so many tokens over the whole vocabulary."""
    import torch

    part, hidden = rows[: -(-len(rows) // _PART)], torch.randn(1, tokens, rows.shape[1], device=rows.device)
    ids = torch.zeros(1, tokens, dtype=torch.long, device=rows.device)
    meter = Meter(source.checkpoint.config.final_logit_softcapping, torch.bfloat16)

    def add() -> None:
        meter.add(ids, student=hidden, teacher=hidden, student_rows=part, teacher_rows=part)

    with torch.no_grad():
        return _seconds(add, rows.device) * len(rows) / len(part)


def _seconds(function: Callable[[], object], device: torch.device) -> float:
    """The mean of several runs, after one that is not counted."""
    import torch

    function()
    runs, begun = 0, time.monotonic()
    while runs < 2 or time.monotonic() - begun < _ENOUGH:
        function()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        runs += 1
    return (time.monotonic() - begun) / runs
