"""Norm weights tuned end to end: a model whose codes are fixed, against the predictions of the source.

The loss is the Kullback-Leibler divergence from the source over the commonest tokens of the text and the first ones of
the vocabulary. Only norms have gradients. A step takes a fixed number of sequences, each on a thread of its own, and
adds their gradients in order: results depend on the processor's arithmetic, not on the number of threads.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from gemmaq.calibration.refine_students import Resident, Streamed, Student
from gemmaq.errors import InputError
from gemmaq.inference.batch import held
from gemmaq.inference.divergence import SLAB, Head, frequent
from gemmaq.models.config import TextConfig

if TYPE_CHECKING:
    import torch

    from gemmaq.encodings import F32
    from gemmaq.inference.decoder import Decoder
    from gemmaq.inference.documents import Tokens

VOCABULARY = 16384
"""Tokens that the loss covers: 99.4 % of the mass of the 270M's predictions for a sixteenth of the logits."""
BATCH = 2
"""Sequences of a step."""
RATE = 2e-3
"""Learning rate of Adam at its highest; from there it falls as a cosine does."""
WARMUP = 4
"""Steps until the learning rate is at its highest."""
TIMED = 3
"""Steps after which their speed is known, of which the first does not count."""
CHECKS = 8
"""Times that the held-out part is measured during a run."""
_GAIN = 1e-6
"""Nats by which a loss must be lower to count as better: losses are only exact to the rounding of f32 logits."""
_KEPT = 40
"""Activations of a layer for the backward pass, as multiples of its hidden size per token, besides its own widths."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long norms are tuned.

    Attributes:
        deadline: end on the monotonic clock, s; None if the steps are known.
        steps: steps until the learning rate is 0; 0 to find out how many fit before the deadline.
        last: step to end after without measuring anything; None to measure, and to keep the best.
    """

    deadline: float | None
    steps: int = 0
    last: int | None = None


@dataclass(frozen=True, slots=True)
class Tuned:
    """Norm weights, and what they are good for.

    Attributes:
        norms: canonical name -> weights as Hugging Face has them, all numbers of BF16.
        steps: steps of the schedule.
        kept: steps that the norms are of; 0 for the source's norms.
        before: mean KL divergence on the held-out part with the norms of the source, in nats.
        after: the same with the tuned norms.
    """

    norms: Mapping[str, F32]
    steps: int
    kept: int
    before: float
    after: float


def memory(config: TextConfig, tokens: int, context: int, workers: int, *, streamed: bool) -> int:
    """Bytes that tuning takes at most, without the program itself.

    Layers in f32, rows of two heads, inputs and targets of all tokens, and for every sequence under way what its layers
    keep for the backward pass, and logits. A model that is read a layer at a time holds the inputs of all layers, and
    all else of one.
    """
    hidden, layers, over = config.hidden_size, config.layers, max if streamed else sum
    inside = over(
        _KEPT * hidden + 6 * layer.ffn + 8 * layer.query_width
        + (layer.experts.active * (2 * hidden + 6 * layer.experts.ffn) if layer.experts else 0)
        for layer in layers
    )  # fmt: skip
    rows = 2 * min(VOCABULARY, config.vocab_size) * hidden
    sequences = min(workers, BATCH) * (context * inside + 5 * min(SLAB, context * VOCABULARY))
    if streamed:
        sequences += BATCH * (context * hidden * len(layers) + held(config, context))
    return 4 * (over(config.layer_parameters) + rows + 2 * tokens * hidden + held(config, tokens) + sequences)


def tune(
    teacher: Decoder,
    student: Decoder,
    tokens: tuple[Tokens, Tokens],
    *,
    schedule: Schedule,
    streamed: bool = False,
    progress: Callable[[int, int, float | None], None],
) -> Tuned:
    """Tune the norms of a model to the predictions of another one.

    Args:
        teacher: the source.
        student: the same in the weights that will be written.
        tokens: i64 [sequences, length] to tune on, and those held out, by which the best step is found.
        schedule: how long.
        streamed: hold one layer of the student at a time, not all of them; the norms are the same.
        progress: called with steps done, steps in all (0 while unknown) and the loss on the held-out part if it was
            measured.

    Raises:
        InputError: the loss is not finite.
    """
    return _Run(teacher, student, tokens, Streamed if streamed else Resident).run(schedule, progress)


class _Run:
    """Student, head, text and what the teacher says of it.

    Attributes:
        targets: number of a sequence -> inputs of the teacher's head, f32 [length, hidden]; those held out follow.
    """

    def __init__(self, teacher: Decoder, student: Decoder, tokens: tuple[Tokens, Tokens], kind: type[Student]) -> None:
        import torch

        checkpoint, config = teacher.checkpoint, teacher.checkpoint.config
        self.teacher, self.device, self.tokens = teacher, teacher.device, np.concatenate(tokens)
        self.count = len(tokens[0])
        self.held = range(self.count, len(self.tokens))
        self.targets: dict[int, torch.Tensor] = {}
        always = (config.bos_token_id, *config.eos_token_ids)
        chosen = frequent(self.tokens, VOCABULARY, always, config.vocab_size)
        ids = np.arange(config.vocab_size) if chosen is None else chosen
        table, place = checkpoint.head or checkpoint.embedding, self.device.torch_device
        self.rows, self.teacher_rows = (torch.from_numpy(d.rows(table, ids)).to(place) for d in (student, teacher))
        self.head = Head(None, config.final_logit_softcapping, torch.float32, None, len(ids))
        inputs = [single for batch in student.embed(self.tokens) for single in batch.split()]
        self.student = kind(student, inputs, self.loss)
        self.weights = list(self.student.norms.values())

    def run(self, schedule: Schedule, progress: Callable[[int, int, float | None], None]) -> Tuned:
        """Tune, and keep the norms that were the best on the held-out part."""
        import torch

        steps, checks, before = schedule.steps, schedule.last is None, 0.0
        if checks:
            self.ready(self.held)
            started = time.monotonic()
            before = self.measure()
            each_check = time.monotonic() - started
        best = Tuned(self.rounded(), steps, 0, before, before)
        optimizer = torch.optim.Adam(self.weights, lr=RATE, betas=(0.9, 0.95))
        started = time.monotonic()
        self.ready(self.order(0, TIMED))
        each_target, clock, step = (time.monotonic() - started) / (TIMED * BATCH), 0.0, 0
        while not steps or step < steps:
            if step == TIMED and not steps:
                assert schedule.deadline is not None
                each = (time.monotonic() - clock) / (TIMED - 1)
                left = schedule.deadline - time.monotonic() - CHECKS * each_check
                steps = step + self._fitting(step, left, each, each_target)
            if step == TIMED:
                self.ready(self.order(step, steps))
            self.step(optimizer, step, steps)
            step += 1
            clock = clock or time.monotonic()
            if step == schedule.last:
                return Tuned(self.rounded(), steps, step, before, before)
            now = self.measure() if checks and steps and (step * CHECKS % steps < CHECKS or step == steps) else None
            if now is not None and now < best.after - _GAIN:
                best = Tuned(self.rounded(), steps, step, before, now)
            progress(step, steps, now)
        return Tuned(best.norms, steps, best.kept, best.before, best.after)

    def _fitting(self, step: int, seconds: float, each: float, each_target: float) -> int:
        """Steps that fit into some seconds, at least one; the first pass over the text needs targets, too."""
        fresh = max(0, (self.count - step * BATCH) // BATCH)
        first = seconds / (each + BATCH * each_target)
        return max(1, int(first if first <= fresh else fresh + (seconds - fresh * (each + BATCH * each_target)) / each))

    def order(self, first: int, last: int) -> list[int]:
        """Sequences of some steps; every pass over the text has an order of its own, whatever the number of steps."""
        random, found = np.random.default_rng(0), list[int]()
        while len(found) < last * BATCH:
            found += random.permutation(self.count).tolist()
        return found[first * BATCH : last * BATCH]

    def ready(self, sequences: Sequence[int]) -> None:
        """Run the teacher over sequences, a layer in memory at a time."""
        new, teacher = [at for at in dict.fromkeys(sequences) if at not in self.targets], self.teacher
        if not new:
            return
        batches = teacher.embed(self.tokens[new])
        for index in range(teacher.layers):
            teacher.through(teacher.layer(index), index, batches)
        self.targets.update(zip(new, chain.from_iterable(teacher.normed(b.hidden) for b in batches), strict=True))

    def loss(self, output: torch.Tensor, sequence: int) -> torch.Tensor:
        """Mean divergence over the tokens of a sequence, of which the head gets these inputs."""
        target = self.targets[sequence]
        both = {"student_rows": self.rows, "teacher_rows": self.teacher_rows}
        total: torch.Tensor = self.head.divergence(output, target, **both)
        return total / len(target)

    def step(self, optimizer: torch.optim.Optimizer, step: int, steps: int) -> None:
        """Make a step; the learning rate does not depend on the number of steps while that may be unknown."""
        import torch

        parts = self.student.gradients(self.order(step, step + 1))
        _check(sum(loss for loss, _ in parts), self.teacher)
        for weight, *slopes in zip(self.weights, *(slopes for _, slopes in parts), strict=True):
            weight.grad = torch.stack(slopes).mean(0)
        falling = 0.5 + 0.5 * math.cos(math.pi * (step - TIMED) / (steps - TIMED)) if step > TIMED else 1.0
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / WARMUP) * falling
        optimizer.step()

    def measure(self) -> float:
        """Mean loss on the held-out part with norms as they would be written."""
        exact = [weight.detach().clone() for weight in self.weights]
        for weight in self.weights:
            weight.data = weight.data.bfloat16().float()
        losses = self.student.losses(self.held)
        for weight, values in zip(self.weights, exact, strict=True):
            weight.data = values
        return _check(sum(losses), self.teacher) / len(losses)

    def rounded(self) -> Mapping[str, F32]:
        """The norms as BF16 holds them."""
        return {name: w.detach().bfloat16().float().cpu().numpy() for name, w in self.student.norms.items()}


def _check(loss: float, teacher: Decoder) -> float:
    if not math.isfinite(loss):
        raise InputError("the loss of refinement is not finite", "leave out --refine", path=teacher.checkpoint.location)
    return loss
