"""Held-out metrics: perplexity of teacher and student, divergence and agreement, over the whole vocabulary."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gemmaq.inference.divergence import SLAB, Head, logits

if TYPE_CHECKING:
    import torch
    from torch import nn

    from gemmaq.inference.distributed import ProcessGroup
    from gemmaq.inference.documents import Tokens

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

        ours, theirs = student[:, :-1].flatten(0, 1), teacher[:, :-1].flatten(0, 1)
        next_ids = ids[:, 1:].flatten()
        step = max(1, SLAB // len(student_rows))
        for first in range(0, len(ours), step):
            p = logits(theirs[first : first + step], teacher_rows, self._cap, self._dtype).log_softmax(-1)
            q = logits(ours[first : first + step], student_rows, self._cap, self._dtype).log_softmax(-1)
            at = next_ids[first : first + step, None]
            sums = (
                -q.gather(1, at).double().sum(),
                -p.gather(1, at).double().sum(),
                (p.exp() * (p - q)).sum(-1).double().sum(),
                (p.argmax(-1) == q.argmax(-1)).double().sum(),
            )
            self._sums += [len(at), *torch.stack(sums).tolist()]

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


def _batches(tokens: Tokens, batch: int, group: ProcessGroup) -> Iterator[torch.Tensor]:
    """Batches of sequences on the device, i64 [batch, length]; every process gets all of them."""
    import torch

    for first in range(0, len(tokens), batch):
        yield torch.from_numpy(tokens[first : first + batch]).to(group.device)
