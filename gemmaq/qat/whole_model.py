"""Training a whole model: batches of tokens, and the teacher's distribution as the target."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gemmaq.errors import UsageError
from gemmaq.inference.divergence import Head, frequent
from gemmaq.qat import grids, model, sampling, trainer
from gemmaq.qat.evaluation import evaluate, refer
from gemmaq.qat.trainer import Schedule, Trainer

if TYPE_CHECKING:
    import torch
    from torch import nn

    from gemmaq.models.config import TextConfig
    from gemmaq.qat.data import TokenDataset
    from gemmaq.qat.evaluation import Evaluation
    from gemmaq.qat.job import Session, Weights
    from gemmaq.qat.sampling import Samples
    from gemmaq.qat.settings import Settings


@dataclass(frozen=True, slots=True)
class _Networks:
    """Student, teacher and the head behind both.

    Attributes:
        student: network in training.
        teacher: network of the source, None once samples of its distribution are on disk.
        samples: these samples, None if the teacher runs beside the student.
        head: head that the loss is computed behind.
    """

    student: nn.Module
    teacher: nn.Module | None
    samples: Samples | None
    head: Head


def train(session: Session) -> tuple[Evaluation, Weights]:
    """Train, and measure before and after; the metrics before are left in the session's state.

    Raises:
        InputError: the loss is not finite, or a file is damaged.
        UsageError: the steps do not fit into the time budget.
        OutputError: a state cannot be saved.
        Stopped: a signal asked for the end.
    """
    job, state, group, callbacks = session.job, session.state, session.group, session.callbacks
    settings, held_out = job.settings, session.data.held_out
    callbacks.say(f"loading teacher and student on {group.device}")
    networks = _networks(session)
    family = job.source.family
    # before any forward pass, after which FSDP shows unsharded parameters in place of the trained ones
    parameters = {model.canonical(name, family): weight for name, weight in model.trained(networks.student).items()}
    optimizer = trainer.adamw(parameters, settings, group.size)
    assert networks.teacher is not None
    loaded = time.monotonic()
    callbacks.say(f"measuring on {held_out.size:,} held-out tokens")
    reference = refer(networks.teacher, held_out, settings.batch, group)

    def measure(task: str) -> Evaluation:
        return evaluate(
            networks.student,
            reference,
            held_out,
            batch=settings.batch,
            group=group,
            head=networks.head,
            progress=callbacks.phase(task),
        )

    if not state.before:
        state.before = measure("measuring before training").document()
    reserve = time.monotonic() - loaded
    if settings.samples:
        networks = _with_samples(networks, session)
    loop = Trainer(
        settings=settings,
        group=group,
        parameters=parameters,
        optimizer=optimizer,
        batches=_losses(networks, session),
        terms=settings.tokens,
    )
    if session.saved is not None:
        loop.restore(session.saved, state.step)
        callbacks.say(f"resuming from step {state.step}")
    schedule = Schedule(
        work=session.work,
        started=session.started,
        minutes=job.minutes,
        deadline=session.deadline,
        reserve=reserve,
        late="fit" if job.steps is None else "refuse",
        save_steps=job.save_steps,
        save_seconds=60 * job.save_minutes,
    )
    trainer.train(loop, state, schedule, callbacks)
    loop.save(session.work, state)
    after = measure("measuring after training")
    scales = {model.canonical(name, family): buffer for name, buffer in model.scales(networks.student).items()}
    return after, _stored(loop, scales, job.source.embedding.name)


def _networks(session: Session) -> _Networks:
    """Load teacher and student; they share the embedding if it is not trained."""
    import torch
    from torch import nn

    settings, group, source, initial = session.job.settings, session.group, session.teacher, session.initial
    teacher_spec, student_spec = model.specs(settings)
    rows = model.embedding(source)
    tokens = np.unique(np.concatenate([session.data.train, session.data.held_out]))
    teacher = model.network(source, teacher_spec, rows, tokens=tokens).eval()
    student_rows: Any = rows
    if settings.embedding:
        trained = initial.read(initial.checkpoint.embedding)
        student_rows = nn.Parameter(torch.from_numpy(trained).to(group.device))
    elif initial is not source:
        student_rows = model.embedding(initial)
    student = model.network(initial, student_spec, student_rows, tokens=tokens, warm_start=session.warm_start).train()
    group.shard(teacher)
    group.shard(student)
    head = head_of(source.checkpoint.config, settings, session.data, rows, shared=student_rows is rows)
    return _Networks(student, teacher, None, head)


def head_of(config: TextConfig, settings: Settings, data: TokenDataset, rows: torch.Tensor, *, shared: bool) -> Head:
    """The head that the loss is computed behind.

    Args:
        config: dimensions of the model.
        settings: hyperparameters.
        data: text that says which tokens the loss covers.
        rows: the teacher's embedding, [vocabulary, hidden].
        shared: whether it is the student's too.
    """
    import torch

    dtype = model.specs(settings)[0].dtype
    always = (config.bos_token_id, *config.eos_token_ids)
    chosen = frequent(data.train, settings.vocabulary, always, config.vocab_size)
    token_ids = None if chosen is None else torch.from_numpy(chosen).to(rows.device)
    own = rows[token_ids].to(dtype) if token_ids is not None and shared else None
    return Head(token_ids, config.final_logit_softcapping, dtype, own, config.vocab_size)


def _with_samples(networks: _Networks, session: Session) -> _Networks:
    """Replace the teacher by samples of its distribution, those of an earlier run if there are any.

    Raises:
        UsageError: there are none, and several processes take part.
        OutputError: they cannot be written.
    """
    settings, group, callbacks = session.job.settings, session.group, session.callbacks
    count = min(settings.samples, networks.head.width)
    samples = sampling.load(session.work, session.data, count, group.device)
    if samples is None:
        if group.size > 1:
            raise UsageError(
                "a single process must draw the teacher's samples",
                "start without torchrun, then continue with --resume",
            )
        assert networks.teacher is not None
        samples = sampling.draw(
            networks.teacher,
            networks.head,
            session.data,
            count=count,
            seed=settings.seed,
            device=group.device,
            work=session.work,
            progress=callbacks.phase(f"drawing {count} samples per token from the teacher"),
        )
    return replace(networks, teacher=None, samples=samples)


def _losses(networks: _Networks, session: Session) -> Callable[[int], Iterator[torch.Tensor]]:
    """The loss as the trainer takes it: step number -> divergence of each batch, summed over this process's tokens."""
    settings, data, group = session.job.settings, session.data, session.group

    def losses(step: int) -> Iterator[torch.Tensor]:
        for number in range(step * settings.accumulate, (step + 1) * settings.accumulate):
            indices = data.indices(settings.seed, number, settings.batch)
            yield _loss(networks, group.part(data.train[indices]), group.part(indices))

    return losses


def _loss(networks: _Networks, ids: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """Divergence from the teacher, summed over tokens.

    Args:
        networks: student, and teacher or samples.
        ids: tokens, i64 [batch, length].
        indices: indices of the sequences in the text, i64 [batch].
    """
    import torch

    head = networks.head
    if networks.samples is not None:
        at, shares = (part.flatten(0, 1) for part in networks.samples.of(indices))

        def sampled(hidden: torch.Tensor, embedding: torch.Tensor) -> Any:
            rows = head.rows_of(embedding)
            return head.sampled_divergence(hidden.flatten(0, 1), at, shares, student_rows=rows)

        return networks.student(ids, sampled)  # type: ignore[no-any-return]
    assert networks.teacher is not None
    with torch.no_grad():
        target, teacher_rows = networks.teacher(ids, lambda hidden, embedding: (hidden, head.rows_of(embedding)))

    def divergence(hidden: torch.Tensor, embedding: torch.Tensor) -> Any:
        return head.divergence(
            hidden.flatten(0, 1),
            target.flatten(0, 1),
            student_rows=head.rows_of(embedding),
            teacher_rows=teacher_rows,
        )

    return networks.student(ids, divergence)  # type: ignore[no-any-return]


def _stored(loop: Trainer, scales: Mapping[str, torch.Tensor], embedding: str) -> Weights:
    """The weights to store: matrices on their grid, everything else as trained; every process must exhaust this.

    Args:
        loop: holds the trained parameters.
        scales: fixed scales of matrices by canonical name.
        embedding: canonical name of the embedding.
    """
    from gemmaq.inference.distributed import gather

    grid = grids.find(loop.settings.grid)
    for name, parameter in loop.parameters.items():
        latent = gather(parameter)
        yield name, latent.numpy() if name == embedding else grids.stored(latent, grid, scales.get(name))
