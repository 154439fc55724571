"""A training as the user asks for it, the callbacks it reports to, and its outcome."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gemmaq.checkpoint import Checkpoint
from gemmaq.progress import Progress
from gemmaq.qat.settings import STEPS, Settings
from gemmaq.qat.state import State

if TYPE_CHECKING:
    from gemmaq.encodings import F32
    from gemmaq.inference.decoder import Decoder
    from gemmaq.inference.distributed import ProcessGroup
    from gemmaq.progress import ProgressCallback
    from gemmaq.qat.data import TokenDataset
    from gemmaq.qat.evaluation import Evaluation
    from gemmaq.qat.warm_start import WarmStart


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingJob:
    """A training as the user asks for it.

    Attributes:
        source: the teacher; the student's initial weights too, unless `start` is given.
        start: checkpoint of the student's initial weights, None for those of the source.
        settings: hyperparameters.
        out: folder to write.
        steps: optimizer steps (of each layer if block-wise), None for the default, a time budget or a saved state.
        minutes: time budget of the whole command, None for no limit.
        block_wise: train one decoder layer at a time.
        resume: continue from the last saved state.
        force: replace an existing output.
        save_steps: steps between saved states, None to save by time.
        save_minutes: minutes between saved states.
        threads: CPU threads.
    """

    source: Checkpoint
    start: Checkpoint | None
    settings: Settings
    out: Path
    steps: int | None = None
    minutes: float | None = None
    block_wise: bool = False
    resume: bool = False
    force: bool = False
    save_steps: int | None = None
    save_minutes: float = 10.0
    threads: int = 1

    @property
    def initial(self) -> Checkpoint:
        """Checkpoint of the student's initial weights."""
        return self.start or self.source

    @property
    def planned_steps(self) -> int | None:
        """Steps of a training from the beginning, None if the time budget decides."""
        return self.steps or (None if self.minutes is not None else STEPS)


@dataclass(frozen=True, slots=True)
class StepMetrics:
    """Metrics after an optimizer step.

    Attributes:
        step: number of the step, from 1.
        steps: steps of the whole training, None while the time budget has not decided.
        loss: nats per token, or the relative squared error of a layer.
        rate: tokens per second, None after the first step.
        left: seconds left, None while unknown.
    """

    step: int
    steps: int | None
    loss: float
    rate: float | None
    left: float | None


@dataclass(frozen=True, slots=True)
class Callbacks:
    """Functions that a training calls while it runs.

    Attributes:
        say: called with a line of text for each phase.
        progress: called with the progress of each phase but the steps.
        step: called after every optimizer step.
        stop_signal: returns the number of the signal that asks the training to stop, 0 for none.
    """

    say: Callable[[str], None]
    progress: ProgressCallback
    step: Callable[[StepMetrics], None]
    stop_signal: Callable[[], int]

    def phase(self, task: str) -> Callable[[int, int], None]:
        """A callback for one phase, called with batches or sequences done and in all."""
        return lambda done, total: self.progress(Progress(task, done, total))


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of a training.

    Attributes:
        state: state after the last step.
        after: held-out metrics of the trained, quantized model; `state.before` has those before training.
        lattices: canonical names of the matrices that got noise -> lattice that they lay on.
    """

    state: State
    after: Evaluation
    lattices: dict[str, str]

    @property
    def steps(self) -> int:
        """Optimizer steps made, of all layers together."""
        return len(self.state.losses)


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A job under way: its models are open, its text is read and its state is loaded.

    Attributes:
        job: what was asked for.
        data: token sequences.
        group: processes that take part.
        callbacks: functions to report to.
        started: time of the command's start on the monotonic clock, s.
        work: folder of saved states.
        state: state to begin with.
        saved: folder of the state to restore, None to begin anew.
        teacher: decoder of the source.
        initial: decoder of the student's initial weights.
        warm_start: matrices of the student that begin on the grid, None if none do.
    """

    job: TrainingJob
    data: TokenDataset
    group: ProcessGroup
    callbacks: Callbacks
    started: float
    work: Path
    state: State
    saved: Path | None
    teacher: Decoder
    initial: Decoder
    warm_start: WarmStart | None

    @property
    def deadline(self) -> float | None:
        """End of the time budget on the monotonic clock, s; None for no limit."""
        return None if self.job.minutes is None else self.started + 60 * self.job.minutes


Weights = Iterator[tuple[str, "F32"]]
"""Canonical names and weights of trained tensors, f32 in the tensor's shape."""


def identity(job: TrainingJob, data: TokenDataset, lattices: dict[str, str]) -> dict[str, Any]:
    """Everything that must be equal for a saved state to be continued, as JSON values."""
    return {
        "settings": asdict(job.settings),
        "source": fingerprint(job.source),
        "start": fingerprint(job.start) if job.start else None,
        "text": data.digest,
        "held_out": data.held_out_digest,
        "dithered": len(lattices),
        **({"block_wise": True} if job.block_wise else {}),
    }


def fingerprint(checkpoint: Checkpoint) -> str:
    """SHA-256 over a checkpoint's dimensions and one row of every tensor."""
    from hashlib import sha256

    from gemmaq.checkpoint.rows import weights
    from gemmaq.files.span import Reader

    digest = sha256(repr(checkpoint.config).encode())
    with Reader() as reader:
        for name, tensor in checkpoint.tensors.items():
            digest.update(name.encode())
            digest.update(weights(tensor, tensor.rows // 2, 1, reader).tobytes())
    return digest.hexdigest()
