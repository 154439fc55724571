"""The training itself: what the student is shown, what is kept, and when it ends."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gemmaq.errors import InputError, UsageError
from gemmaq.inference.distributed import Ranks, put, whole
from gemmaq.qat import model
from gemmaq.qat import state as checkpoints
from gemmaq.qat.data import Data
from gemmaq.qat.loss import Head, Measured, Meter
from gemmaq.qat.settings import Settings
from gemmaq.qat.state import State

if TYPE_CHECKING:
    import torch
    from torch import nn

    from gemmaq.qat.samples import Samples

MEASURED = 5
"""Steps after which the rate is known; the first is slower and does not count."""
_SAFETY = 1.05


@dataclass(frozen=True, slots=True)
class Told:
    """What is to be seen while it runs.

    Attributes:
        step: that was made, counted from 1.
        steps: in all.
        loss: of it, nats a token.
        rate: tokens a second.
        left: seconds.
    """

    step: int
    steps: int
    loss: float
    rate: float
    left: float


class Stopped(Exception):
    """Somebody asked for an end; the state is saved.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@dataclass(frozen=True, slots=True)
class Rules:
    """When to save and when to end.

    Attributes:
        work: folder of the states.
        deadline: on the monotonic clock, None for none.
        begun: when the command started, on the same clock.
        reserve: seconds that what comes after will take.
        every: steps between states, None to go by time.
        seconds: between states.
        fixed: whether the steps are what the user asked for.
    """

    work: Path
    deadline: float | None
    begun: float
    reserve: float
    every: int | None
    seconds: float
    fixed: bool


@dataclass(frozen=True, slots=True)
class Trainer:
    """Everything that is in memory.

    Attributes:
        settings: of the training.
        ranks: who takes part.
        data: sequences.
        student: trained.
        teacher: its, None where samples of it are known.
        samples: of the teacher, or None.
        head: and what is compared behind it.
        optimizer: of the student.
    """

    settings: Settings
    ranks: Ranks
    data: Data
    student: nn.Module
    teacher: nn.Module | None
    samples: Samples | None
    head: Head
    optimizer: torch.optim.Optimizer

    @property
    def trained(self) -> dict[str, nn.Parameter]:
        """By canonical name."""
        return dict(model.parameters(self.student))

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of everything trained."""
        return {name: tuple(parameter.shape) for name, parameter in self.trained.items()}

    def save(self, work: Path, state: State) -> None:
        """See `checkpoints.save`; every process must."""
        checkpoints.save(work, state, self.shapes, self._fetch, self.ranks.first)
        self.ranks.wait()

    def _fetch(self, group: str, name: str) -> torch.Tensor:
        import torch

        parameter = self.trained[name]
        if group == "weights":
            return whole(parameter)
        kept = self.optimizer.state.get(parameter, {}).get({"first": "exp_avg", "second": "exp_avg_sq"}[group])
        return torch.zeros(tuple(parameter.shape)) if kept is None else whole(kept)

    def restore(self, folder: Path, step: int) -> None:
        """Put weights and moments of a state in place.

        Raises:
            InputError: they are damaged.
        """
        import torch

        trained, shapes = self.trained, self.shapes
        for name, values in checkpoints.tensors(folder, "weights", shapes):
            put(trained[name], values)
        for group, key in (("first", "exp_avg"), ("second", "exp_avg_sq")):
            for name, values in checkpoints.tensors(folder, group, shapes):
                kept = self.optimizer.state[trained[name]]
                kept["step"] = torch.tensor(float(step))
                kept[key] = torch.zeros_like(trained[name])
                put(kept[key], values)


def optimizer(student: nn.Module, settings: Settings, ranks: Ranks) -> torch.optim.Optimizer:
    """AdamW without decay of the weights."""
    import torch

    found = [parameter for _, parameter in model.parameters(student)]
    alone = ranks.count == 1
    return torch.optim.AdamW(found, lr=settings.learning_rate, betas=(0.9, 0.95), weight_decay=0.0, fused=alone or None)


def run(trainer: Trainer, state: State, rules: Rules, told: Callable[[Told], None], asked: Callable[[], int]) -> None:
    """Train until the last step.

    Args:
        trainer: see there.
        state: where to begin; is kept up.
        rules: when to save and when to end.
        told: is called after every step.
        asked: number of the signal that asks for an end, 0 for none.

    Raises:
        InputError: the loss is no number any more.
        UsageError: the steps do not fit into the minutes.
        OutputError: a state cannot be saved.
        Stopped: somebody asked for an end.
    """
    first, started, last_saved = state.step, 0.0, time.monotonic()
    settings = trainer.settings
    tokens = settings.sequences * settings.context
    while state.step < state.steps:
        if state.step == first + 1:
            started = time.monotonic()
        loss = step(trainer, replace(settings, steps=state.steps), state.step)
        if not math.isfinite(loss):
            raise _diverged(state, settings, checkpoints.saved(rules.work))
        state.losses.append(loss)
        state.step += 1
        timed = state.step - first - 1
        seconds = (time.monotonic() - started) / timed if timed else 0.0
        seconds = trainer.ranks.total(seconds)[0] / trainer.ranks.count
        if timed == MEASURED - 1 and rules.deadline is not None:
            _fit(trainer, state, rules, seconds)
        rate = tokens / seconds if timed else 0.0
        told(Told(state.step, state.steps, loss, rate, seconds * (state.steps - state.step)))
        late = rules.deadline is not None and time.monotonic() > rules.deadline - rules.reserve
        if trainer.ranks.agree(late) and timed >= MEASURED and state.step < state.steps:
            state.changes.append([state.step, state.step])
            state.steps = state.step
        signal = _signal(trainer.ranks, asked())
        by_time = trainer.ranks.agree(time.monotonic() - last_saved > rules.seconds)
        due = state.step % rules.every == 0 if rules.every else by_time
        if signal or due or state.step == state.steps:
            trainer.save(rules.work, state)
            last_saved = time.monotonic()
        if signal and state.step < state.steps:
            raise Stopped(signal)


def _signal(ranks: Ranks, number: int) -> int:
    """The signal that some process got, 0 for none; all agree on it."""
    total, times = ranks.total(float(number), float(number > 0))
    return round(total / times) if times else 0


def _fit(trainer: Trainer, state: State, rules: Rules, seconds: float) -> None:
    """Set the number of steps by the time there is, or see to it that those asked for fit."""
    assert rules.deadline is not None
    left = rules.deadline - rules.reserve - time.monotonic()
    here = state.step + max(0, int(left / (seconds * _SAFETY)))
    fits = int(trainer.ranks.total(float(here))[0] / trainer.ranks.count)
    if rules.fixed and fits < state.steps:
        trainer.save(rules.work, state)
        minutes = (state.steps * seconds + rules.reserve + started_before(rules, state, seconds)) / 60
        raise UsageError(
            f"{state.steps} steps of {seconds:.2f} s take about {math.ceil(minutes)} minutes, "
            f"{(rules.deadline - rules.begun) / 60:g} are allowed: {fits} fit",
            f"--resume --steps {fits}, or more --minutes; the {state.step} steps made are kept",
        )
    if not rules.fixed:
        state.steps = max(fits, state.step + 1)
        state.changes.append([state.step, state.steps])


def started_before(rules: Rules, state: State, seconds: float) -> float:
    """Seconds that went by before the first step."""
    return max(0.0, time.monotonic() - rules.begun - state.step * seconds)


def _diverged(state: State, settings: Settings, kept: Path | None) -> InputError:
    rest = f"; {kept.name} is kept" if kept else ""
    return InputError(
        f"the loss of step {state.step + 1} is no number{rest}",
        f"a lower --learning-rate (it was {settings.learning_rate:g}), and --force to begin anew",
    )


def step(trainer: Trainer, settings: Settings, number: int) -> float:
    """One step of the optimizer; its loss, nats a token, before the step."""
    import torch

    tokens = settings.sequences * settings.context
    scale = trainer.ranks.count / tokens
    total = 0.0
    for part in range(settings.accumulate):
        batch = trainer.data.batch(settings.seed, number * settings.accumulate + part, settings.batch)
        loss = _loss(trainer, batch, number * settings.accumulate + part)
        (loss * scale).backward()  # type: ignore[no-untyped-call]
        total += float(loss.detach())
    found = trainer.ranks.total(total)[0] / tokens
    parameters = list(trainer.trained.values())
    norm: Any = torch.nn.utils.clip_grad_norm_(parameters, settings.clip)
    norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
    if not math.isfinite(found) or not math.isfinite(float(norm)):
        return math.nan
    for group in trainer.optimizer.param_groups:
        group["lr"] = settings.rate(number)
    trainer.optimizer.step()
    trainer.optimizer.zero_grad(set_to_none=True)
    return found


def _loss(trainer: Trainer, batch: Any, number: int) -> torch.Tensor:
    """The sum over the tokens of this process's part of a batch."""
    import torch

    ids = trainer.ranks.share(batch)
    head = trainer.head
    if trainer.samples is not None:
        places = trainer.data.places(trainer.settings.seed, number, trainer.settings.batch)
        at, shares = trainer.samples.of(trainer.ranks.share(places))

        def sampled(hidden: torch.Tensor, embedding: torch.Tensor) -> Any:
            return head.sampled(hidden.flatten(0, 1), head.rows_of(embedding), at.flatten(0, 1), shares.flatten(0, 1))

        return trainer.student(ids, sampled)  # type: ignore[no-any-return]
    assert trainer.teacher is not None
    with torch.no_grad():
        target, its = trainer.teacher(ids, lambda hidden, embedding: (hidden, head.rows_of(embedding)))

    def divergence(hidden: torch.Tensor, embedding: torch.Tensor) -> Any:
        return head.divergence(hidden.flatten(0, 1), target.flatten(0, 1), head.rows_of(embedding), its)

    return trainer.student(ids, divergence)  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class Reference:
    """What the teacher makes of the held-out text, f32 [batch, length, hidden] a batch, and its head."""

    hidden: tuple[torch.Tensor, ...]
    rows: torch.Tensor


def refer(teacher: nn.Module, ranks: Ranks, data: Data, batch: int) -> Reference:
    """Run the teacher over the held-out text."""
    import torch

    found = []
    with torch.no_grad():
        for first in range(0, len(data.held_out), batch):
            ids = torch.from_numpy(data.held_out[first : first + batch]).to(ranks.device)
            hidden, rows = teacher(ids, lambda hidden, embedding: (hidden, embedding))
            found.append(hidden)
    return Reference(tuple(found), rows)


def measure(student: nn.Module, reference: Reference, ranks: Ranks, data: Data, batch: int, head: Head) -> Measured:
    """What the student is worth on the held-out text; every process must ask."""
    import torch

    meter = Meter(head.cap, head.dtype)
    with torch.no_grad():
        for number, first in enumerate(range(0, len(data.held_out), batch)):
            ids = torch.from_numpy(data.held_out[first : first + batch]).to(ranks.device)

            def add(hidden: torch.Tensor, embedding: torch.Tensor, ids: Any = ids, number: int = number) -> None:
                meter.add(ids, hidden, reference.hidden[number], embedding, reference.rows)

            student(ids, add)
    return meter.result()
