"""The training loop, for a whole model or one layer: optimizer, learning rate, time budget, saved states, signals."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gemmaq.errors import InputError, UsageError
from gemmaq.inference.distributed import ProcessGroup, assign, gather
from gemmaq.qat import state as states
from gemmaq.qat.job import Callbacks, StepMetrics
from gemmaq.qat.settings import Settings
from gemmaq.qat.state import State

if TYPE_CHECKING:
    import torch
    from torch import nn

MEASURED = 5
"""Steps after which their speed is known; the first is slower and does not count."""
SAFETY = 1.05
"""What a step is taken to last longer than measured, where a time budget says how many there are."""
_MOMENTS = {"first": "exp_avg", "second": "exp_avg_sq"}
"""Files of a saved state -> names in AdamW's state."""


class Stopped(Exception):
    """A signal asked for the end; the state is saved.

    Attributes:
        number: number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """When a training saves its state and when it ends.

    Attributes:
        work: folder of saved states.
        started: time of the command's start on the monotonic clock, s.
        minutes: time budget of the whole command, None for no limit.
        deadline: end of this training on the monotonic clock, s; None for no limit.
        reserve: seconds of the time before the deadline that are needed after the last step.
        late: what to do once the speed of the steps is known: `refuse` a number of steps that does not fit, `fit` the
            number to the time, or keep it and `stop` at the deadline.
        save_steps: steps between saved states, None to save by time.
        save_seconds: seconds between saved states.
        layers: layers still to be trained, this one among them; 1 for a whole model.
    """

    work: Path
    started: float
    minutes: float | None
    deadline: float | None
    reserve: float
    late: Literal["refuse", "fit", "stop"]
    save_steps: int | None
    save_seconds: float
    layers: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Trainer:
    """A network in training, whatever its loss.

    Attributes:
        settings: hyperparameters.
        group: processes that take part.
        parameters: trained parameters by canonical name.
        optimizer: optimizer of the parameters.
        batches: step number -> this process's summed loss of each batch of the step, with a graph for gradients.
        terms: number that the summed losses of a step, over all processes, are divided by.
        label: prefix of error messages.
    """

    settings: Settings
    group: ProcessGroup
    parameters: Mapping[str, nn.Parameter]
    optimizer: torch.optim.Optimizer
    batches: Callable[[int], Iterator[torch.Tensor]]
    terms: float
    label: str = ""

    def save(self, work: Path, state: State) -> None:
        """Save weights, moments and progress; every process must call this. Errors are those of `state.save`."""
        shapes = {name: tuple(parameter.shape) for name, parameter in self.parameters.items()}
        states.save(work, state, shapes, self.fetch, self.group.main)
        self.group.barrier()

    def fetch(self, group: str, name: str) -> torch.Tensor:
        """A parameter or one of its moments, by the name of its group in a saved state, f32 on the CPU."""
        import torch

        parameter = self.parameters[name]
        if group == "weights":
            return gather(parameter)
        moment = self.optimizer.state.get(parameter, {}).get(_MOMENTS[group])
        return torch.zeros(tuple(parameter.shape)) if moment is None else gather(moment)

    def restore(self, folder: Path, step: int) -> None:
        """Load weights and moments of a saved state.

        Raises:
            InputError: a file is damaged.
        """
        import torch

        shapes = {name: tuple(parameter.shape) for name, parameter in self.parameters.items()}
        for name, values in states.read_tensors(folder / "weights.safetensors", shapes):
            assign(self.parameters[name], values)
        for group, key in _MOMENTS.items():
            for name, values in states.read_tensors(folder / f"{group}.safetensors", shapes):
                moments = self.optimizer.state[self.parameters[name]]
                moments["step"] = torch.tensor(float(step))
                moments[key] = torch.zeros_like(self.parameters[name])
                assign(moments[key], values)


def adamw(parameters: Mapping[str, nn.Parameter], settings: Settings, processes: int) -> torch.optim.Optimizer:
    """AdamW without weight decay, for parameters that so many processes share."""
    import torch

    fused = True if processes == 1 else None
    rate = settings.learning_rate
    return torch.optim.AdamW(list(parameters.values()), lr=rate, betas=(0.9, 0.95), weight_decay=0.0, fused=fused)


def train(trainer: Trainer, state: State, schedule: Schedule, callbacks: Callbacks) -> None:
    """Train from the state's step to its last, keeping the state up to date.

    The state after the last step is not saved here.

    Raises:
        InputError: the loss is not finite.
        UsageError: the steps do not fit into the time budget.
        OutputError: a state cannot be saved.
        Stopped: a signal asked for the end.
    """
    group, first, started, saved_at = trainer.group, state.step, 0.0, time.monotonic()
    while state.steps is None or state.step < state.steps:
        if state.step == first + 1:
            started = time.monotonic()
        loss = step(trainer, state.step, state.steps)
        if not math.isfinite(loss):
            raise _diverged(trainer, state, schedule.work)
        state.losses.append(loss)
        state.step += 1
        timed = state.step - first - 1
        seconds = group.mean((time.monotonic() - started) / timed if timed else 0.0)
        if timed == MEASURED - 1 and schedule.deadline is not None:
            _settle_steps(trainer, state, schedule, seconds)
        callbacks.step(_metrics(state, schedule, trainer.settings.tokens, seconds))
        late = schedule.deadline is not None and time.monotonic() > schedule.deadline - schedule.reserve
        if group.any(late) and timed >= MEASURED and state.step != state.steps:
            state.set_steps(state.step)
        signal = _agreed(group, callbacks.stop_signal())
        overdue = group.any(time.monotonic() - saved_at > schedule.save_seconds)
        due = state.step % schedule.save_steps == 0 if schedule.save_steps else overdue
        if (signal or due) and state.step != state.steps:
            trainer.save(schedule.work, state)
            saved_at = time.monotonic()
        if signal and state.step != state.steps:
            raise Stopped(signal)


def step(trainer: Trainer, number: int, steps: int | None) -> float:
    """Make one optimizer step and return the loss before it; NaN if the loss or its gradient is not finite."""
    import torch

    scale, total = trainer.group.size / trainer.terms, 0.0
    for loss in trainer.batches(number):
        (loss * scale).backward()  # type: ignore[no-untyped-call]
        total += float(loss.detach())
    mean = trainer.group.sum(total)[0] / trainer.terms
    norm: Any = torch.nn.utils.clip_grad_norm_(list(trainer.parameters.values()), trainer.settings.clip)
    norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
    if not math.isfinite(mean) or not math.isfinite(float(norm)):
        return math.nan
    for parameters in trainer.optimizer.param_groups:
        parameters["lr"] = trainer.settings.rate(number, steps)
    trainer.optimizer.step()
    trainer.optimizer.zero_grad(set_to_none=True)
    return mean


def _metrics(state: State, schedule: Schedule, tokens: int, seconds: float) -> StepMetrics:
    """Metrics of the last step, over all layers.

    Args:
        state: progress.
        schedule: says how many layers follow.
        tokens: tokens per step.
        seconds: seconds per step, 0 while unknown.
    """
    done, left = len(state.losses), None
    if state.steps is not None:
        left = schedule.layers * state.steps - state.step
    return StepMetrics(
        done,
        None if left is None else done + left,
        state.losses[-1],
        tokens / seconds if seconds else None,
        seconds * left if seconds and left is not None else None,
    )


def _agreed(group: ProcessGroup, signal: int) -> int:
    """The signal that any process received, 0 for none."""
    total, processes = group.sum(float(signal), float(signal > 0))
    return round(total / processes) if processes else 0


def _settle_steps(trainer: Trainer, state: State, schedule: Schedule, seconds: float) -> None:
    """Fit the number of steps to the time left, or refuse a number that does not fit.

    Raises:
        UsageError: the steps do not fit; the state is saved.
    """
    assert schedule.deadline is not None
    now = time.monotonic()
    left = schedule.deadline - schedule.reserve - now
    fit = int(trainer.group.mean(float(state.step + max(0, int(left / (seconds * SAFETY))))))
    if schedule.late == "fit":
        state.set_steps(max(fit, state.step + 1))
    elif schedule.late == "refuse" and state.steps is not None and fit < state.steps:
        trainer.save(schedule.work, state)
        before = max(0.0, now - schedule.started - state.step * seconds)
        minutes = (before + schedule.layers * (state.steps * seconds + schedule.reserve)) / 60
        each = " per layer" if schedule.layers > 1 else ""
        raise UsageError(
            f"{state.steps} steps{each} of {seconds:.2f} s take about {math.ceil(minutes)} minutes, "
            f"{schedule.minutes:g} are allowed: {fit} fit",
            f"--resume --steps {fit}, or more --minutes; the {state.step} steps made are saved",
        )


def _diverged(trainer: Trainer, state: State, work: Path) -> InputError:
    name = states.intact(work)
    rest = f"; {name} is intact" if name else ""
    return InputError(
        f"{trainer.label}the loss of step {state.step + 1} is not finite{rest}",
        f"a lower --learning-rate (it was {trainer.settings.learning_rate:g}), and --force to begin anew",
    )
