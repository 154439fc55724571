"""How far the student is from its teacher: over the head's whole vocabulary, a part of it, or samples."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

    from gemmaq.inference.documents import Tokens

_SLAB = 1 << 23
"""Logits that are there at a time where all are wanted."""


def frequent(tokens: Tokens, count: int, always: tuple[int | None, ...], size: int) -> Tokens | None:
    """The most frequent tokens of a text, ascending, i64 [count]; None if that is the whole vocabulary.

    Args:
        tokens: of the text.
        count: how many, 0 for all.
        always: tokens to be among them.
        size: of the vocabulary.
    """
    if count == 0 or count >= size:
        return None
    found, times = np.unique(tokens, return_counts=True)
    order = found[np.argsort(-times, kind="stable")]
    kept = [token for token in always if token is not None and token < size]
    rest = np.setdiff1d(np.arange(size), np.concatenate([order, kept]), assume_unique=False)
    ranked = np.concatenate([np.asarray(kept, np.int64), order[~np.isin(order, kept)], rest])
    return np.sort(ranked[:count])


def logits(hidden: torch.Tensor, rows: torch.Tensor, cap: float | None, dtype: torch.dtype) -> torch.Tensor:
    """F32 [tokens, vocabulary] of what the head gets, [tokens, hidden]."""
    import torch

    found = (hidden.to(dtype) @ rows.to(dtype).T).float()
    return found if cap is None else cap * torch.tanh(found / cap)


@dataclass(frozen=True, slots=True)
class Head:
    """The last matrix, which is the embedding, and what is compared behind it.

    Attributes:
        kept: ids of the tokens the loss is over, i64 on the device; None for all.
        cap: of the logits, None for none.
        dtype: of the product.
        rows: those of `kept`, where the embedding does not change; None to look them up.
        vocabulary: size of all.
    """

    kept: torch.Tensor | None
    cap: float | None
    dtype: torch.dtype
    rows: torch.Tensor | None
    vocabulary: int

    @property
    def width(self) -> int:
        """Tokens the loss is over."""
        return self.vocabulary if self.kept is None else len(self.kept)

    def rows_of(self, embedding: torch.Tensor) -> torch.Tensor:
        """The rows behind the loss."""
        if self.rows is not None:
            return self.rows
        return embedding if self.kept is None else embedding[self.kept]

    def divergence(self, hidden: torch.Tensor, teacher: torch.Tensor, own: torch.Tensor, its: torch.Tensor) -> Any:
        """Sum over tokens of the Kullback-Leibler divergence from the teacher, nats.

        Args:
            hidden: of the student, f32 [tokens, hidden].
            teacher: the same of the teacher.
            own: rows of the student's head.
            its: of the teacher's.
        """
        import torch

        def part(mine: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                target = logits(other, its, self.cap, self.dtype).log_softmax(-1)
            found = logits(mine, own, self.cap, self.dtype).log_softmax(-1)
            return (target.exp() * (target - found)).sum()

        return _by_slabs(part, self.width, hidden, teacher)

    def sampled(self, hidden: torch.Tensor, own: torch.Tensor, ids: torch.Tensor, shares: torch.Tensor) -> Any:
        """The same where of the teacher only samples are known: their places and shares, [tokens, samples]."""

        def part(mine: torch.Tensor, at: torch.Tensor, target: torch.Tensor) -> Any:
            found = logits(mine, own, self.cap, self.dtype).log_softmax(-1).gather(1, at.long())
            return (target * (target.clamp_min(1e-30).log() - found)).sum()

        return _by_slabs(part, self.width, hidden, ids, shares)


def _by_slabs(part: Any, width: int, *given: torch.Tensor) -> Any:
    """The sum over tokens of a function of some of them at a time, whose logits are computed again for gradients."""
    import torch
    from torch.utils.checkpoint import checkpoint

    step = max(1, _SLAB // width)
    if len(given[0]) <= step:
        return part(*given)
    total: Any = 0.0
    for first in range(0, len(given[0]), step):
        slab = [tensor[first : first + step] for tensor in given]
        again = torch.is_grad_enabled()
        total = total + (checkpoint(part, *slab, use_reentrant=False) if again else part(*slab))
    return total


@dataclass(frozen=True, slots=True)
class Measured:
    """What a model is worth on a held-out text.

    Attributes:
        tokens: that were predicted.
        perplexity: of the model.
        reference: perplexity of the teacher.
        divergence: mean from the teacher, nats a token.
        agreement: share of tokens for which both choose the same.
    """

    tokens: int
    perplexity: float
    reference: float
    divergence: float
    agreement: float

    def document(self) -> dict[str, float]:
        """As the record has it."""
        return {
            "tokens": self.tokens,
            "perplexity": round(self.perplexity, 4),
            "teacher_perplexity": round(self.reference, 4),
            "kl": round(self.divergence, 6),
            "top1": round(self.agreement, 4),
        }


class Meter:
    """Sums over the tokens of a text, with the whole vocabulary."""

    def __init__(self, cap: float | None, dtype: torch.dtype) -> None:
        self._cap, self._dtype = cap, dtype
        self._sums = np.zeros(5)

    def add(
        self, ids: torch.Tensor, own: torch.Tensor, its: torch.Tensor, rows: torch.Tensor, rows_its: torch.Tensor
    ) -> None:
        """Sequences, i64 [batch, length], and what both heads get for them, f32 [batch, length, hidden]."""
        import torch

        mine, other = own[:, :-1].flatten(0, 1), its[:, :-1].flatten(0, 1)
        next_ids = ids[:, 1:].flatten()
        step = max(1, _SLAB // len(rows))
        for first in range(0, len(mine), step):
            p = logits(other[first : first + step], rows_its, self._cap, self._dtype).log_softmax(-1)
            q = logits(mine[first : first + step], rows, self._cap, self._dtype).log_softmax(-1)
            at = next_ids[first : first + step, None]
            sums = (
                -q.gather(1, at).double().sum(),
                -p.gather(1, at).double().sum(),
                (p.exp() * (p - q)).sum(-1).double().sum(),
                (p.argmax(-1) == q.argmax(-1)).double().sum(),
            )
            self._sums += [len(at), *torch.stack(sums).tolist()]

    def result(self) -> Measured:
        """The means."""
        count, own, its, divergence, same = self._sums
        return Measured(
            int(count), _exp(own / count), _exp(its / count), float(divergence / count), float(same / count)
        )


def _exp(value: float) -> float:
    return math.exp(min(value, 700.0))
