"""Held-out metrics: perplexity of teacher and student, divergence and agreement, over the whole vocabulary."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gemmaq.inference.divergence import Head, logits

if TYPE_CHECKING:
    import torch
    from torch import nn

    from gemmaq.inference.distributed import ProcessGroup
    from gemmaq.inference.documents import Tokens

_LOGITS = 1 << 22
"""Logits of a model in memory at a time: so many stay in the caches of a processor."""
_TOKENS = 1 << 10
"""Tokens in a batch at least."""
_NARROWEST = 1 << 10
"""Tokens of the vocabulary at a time at least: narrower products are slow."""

Progress = Callable[[int, int], None]
"""Called with batches done and batches in all."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Held-out metrics of a model.

    Attributes:
        tokens: predicted tokens.
        perplexity: perplexity of the model.
        reference: perplexity of the teacher.
        divergence: mean Kullback-Leibler divergence from the teacher, nats per token.
        agreement: share of tokens for which model and teacher rank the same token first.
    """

    tokens: int
    perplexity: float
    reference: float
    divergence: float
    agreement: float

    def document(self) -> dict[str, float]:
        """The metrics as JSON values."""
        return {
            "tokens": self.tokens,
            "perplexity": round(self.perplexity, 4),
            "teacher_perplexity": round(self.reference, 4),
            "kl": round(self.divergence, 6),
            "top1": round(self.agreement, 4),
        }


@dataclass(slots=True)
class _Running:
    """What is known of the distributions of some tokens after a part of the vocabulary.

    Attributes:
        next_ids: tokens that follow, i64 [tokens].
        peak: largest logit, f64 [tokens].
        total: sum of exp(logit - peak), f64 [tokens].
        best: token with the largest logit, i64 [tokens].
        chosen: logit of the token that follows, f64 [tokens].
    """

    next_ids: torch.Tensor
    peak: torch.Tensor
    total: torch.Tensor
    best: torch.Tensor
    chosen: torch.Tensor

    @classmethod
    def start(cls, next_ids: torch.Tensor) -> _Running:
        """Nothing is known."""
        import torch

        zeros = torch.zeros(len(next_ids), dtype=torch.float64, device=next_ids.device)
        return cls(next_ids, zeros - math.inf, zeros, torch.zeros_like(next_ids), zeros)

    def add(self, logits: torch.Tensor, first: int) -> torch.Tensor:
        """Add logits of the tokens from `first` on, f32 [tokens, n], which become exp(logit - peak).

        Returns:
            What sums that were made with the former peak have to be multiplied with, f64 [tokens].
        """
        import torch

        at = self.next_ids - first
        is_here = (at >= 0) & (at < logits.shape[1])
        chosen = logits.gather(1, at.clamp(0, logits.shape[1] - 1)[:, None])[:, 0]
        self.chosen = torch.where(is_here, chosen.double(), self.chosen)
        highest, best = logits.max(-1)
        self.best = torch.where(highest > self.peak, best + first, self.best)
        peak = torch.maximum(self.peak, highest.double())
        shrunk = (self.peak - peak).exp()
        self.peak = peak
        self.total = self.total * shrunk + logits.sub_(peak.float()[:, None]).exp_().sum(-1)
        return shrunk

    def log_total(self) -> torch.Tensor:
        """Logarithm of the sum of exp(logit), f64 [tokens]."""
        return self.peak + self.total.log()


class Meter:
    """Accumulates held-out metrics over the tokens of a text.

    Args:
        cap: soft cap of the logits, None for none.
        dtype: dtype of the head's product.
    """

    def __init__(self, cap: float | None, dtype: torch.dtype) -> None:
        self._cap, self._dtype = cap, dtype
        self._sums = np.zeros(5)

    def add(
        self,
        ids: torch.Tensor,
        *,
        student: torch.Tensor,
        teacher: torch.Tensor,
        student_rows: torch.Tensor,
        teacher_rows: torch.Tensor,
    ) -> None:
        """Add some sequences.

        Args:
            ids: tokens, i64 [batch, length].
            student: inputs of the student's head, f32 [batch, length, hidden].
            teacher: inputs of the teacher's head, in the same shape.
            student_rows: rows of the student's head, [vocabulary, hidden].
            teacher_rows: rows of the teacher's head.
        """
        import torch

        next_ids = ids[:, 1:].flatten()
        p, q = _Running.start(next_ids), _Running.start(next_ids)
        apart = p.total.clone()
        ours, theirs = student[:, :-1].flatten(0, 1), teacher[:, :-1].flatten(0, 1)
        step = max(_NARROWEST, _LOGITS // len(ours))
        for first in range(0, len(student_rows), step):
            rows = slice(first, first + step)
            theirs_here = logits(theirs, teacher_rows[rows], self._cap, self._dtype)
            ours_here = logits(ours, student_rows[rows], self._cap, self._dtype)
            apart_here = theirs_here - ours_here
            q.add(ours_here, first)
            apart = apart * p.add(theirs_here, first) + apart_here.mul_(theirs_here).sum(-1)
        own, reference = q.log_total(), p.log_total()
        sums = (
            (own - q.chosen).sum(),
            (reference - p.chosen).sum(),
            (apart / p.total + own - reference).sum(),
            (p.best == q.best).double().sum(),
        )
        self._sums += [len(next_ids), *torch.stack(sums).tolist()]

    def result(self) -> Evaluation:
        """The means over all tokens."""
        count, student, teacher, divergence, same = self._sums
        return Evaluation(
            int(count), _exp(student / count), _exp(teacher / count), float(divergence / count), float(same / count)
        )


def _exp(value: float) -> float:
    return math.exp(min(value, 700.0))


@dataclass(frozen=True, slots=True)
class Reference:
    """The teacher's outputs on the held-out text.

    Attributes:
        hidden: inputs of its head for each batch, f32 [batch, length, hidden].
        rows: rows of its head, [vocabulary, hidden].
    """

    hidden: tuple[torch.Tensor, ...]
    rows: torch.Tensor


def refer(teacher: nn.Module, held_out: Tokens, batch: int, group: ProcessGroup) -> Reference:
    """Run the teacher over the held-out text."""
    import torch

    hidden, rows = [], None
    with torch.no_grad():
        for ids in _batches(held_out, batch, group):
            outputs, rows = teacher(ids, lambda hidden, embedding: (hidden, embedding))
            hidden.append(outputs)
    assert rows is not None
    return Reference(tuple(hidden), rows)


def evaluate(
    student: nn.Module,
    reference: Reference,
    held_out: Tokens,
    *,
    batch: int,
    group: ProcessGroup,
    head: Head,
    progress: Progress,
) -> Evaluation:
    """Compare the student with the teacher on the held-out text; every process must call this."""
    import torch

    meter = Meter(head.cap, head.dtype)
    with torch.no_grad():
        for number, ids in enumerate(_batches(held_out, batch, group)):

            def add(hidden: torch.Tensor, embedding: torch.Tensor, ids: Any = ids, number: int = number) -> None:
                teacher = reference.hidden[number]
                meter.add(ids, student=hidden, teacher=teacher, student_rows=embedding, teacher_rows=reference.rows)

            progress(number, len(reference.hidden))
            student(ids, add)
    progress(len(reference.hidden), len(reference.hidden))
    return meter.result()


def together(batch: int, length: int) -> int:
    """Sequences that are measured at a time, of so many in a batch of training and of that length."""
    return max(batch, _TOKENS // length)


def _batches(tokens: Tokens, batch: int, group: ProcessGroup) -> Iterator[torch.Tensor]:
    """Batches of sequences on the device, i64 [batch, length]; every process gets all of them.

    They are larger than those of training where these are small: matrices are put on their grid for every batch.
    """
    import torch

    batch = together(batch, tokens.shape[1])
    for first in range(0, len(tokens), batch):
        yield torch.from_numpy(tokens[first : first + batch]).to(group.device)
