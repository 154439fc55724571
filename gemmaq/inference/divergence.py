"""The loss: divergence of the student from the teacher, over all logits, some of them, or samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

    from gemmaq.inference.documents import Tokens

SLAB = 1 << 23
"""Logits in memory at a time."""


def frequent(tokens: Tokens, count: int, always: tuple[int | None, ...], size: int) -> Tokens | None:
    """The most frequent tokens of a text, ascending, i64 [count]; None if that is the whole vocabulary.

    Args:
        tokens: tokens of the text.
        count: how many to return, 0 for all.
        always: tokens to include whatever their frequency.
        size: size of the vocabulary.
    """
    if count == 0 or count >= size:
        return None
    present, times = np.unique(tokens, return_counts=True)
    by_frequency = present[np.argsort(-times, kind="stable")]
    first = [token for token in always if token is not None and token < size]
    absent = np.setdiff1d(np.arange(size), np.concatenate([by_frequency, first]), assume_unique=False)
    ranked = np.concatenate([np.asarray(first, np.int64), by_frequency[~np.isin(by_frequency, first)], absent])
    return np.sort(ranked[:count])


def logits(hidden: torch.Tensor, rows: torch.Tensor, cap: float | None, dtype: torch.dtype) -> torch.Tensor:
    """Logits, f32 [tokens, vocabulary], of the head's inputs, [tokens, hidden]."""
    import torch

    uncapped = (hidden.to(dtype) @ rows.to(dtype).T).float()
    return uncapped if cap is None else cap * torch.tanh(uncapped / cap)


@dataclass(frozen=True, slots=True)
class Head:
    """The head, tied to the embedding, and the part of its vocabulary that the loss covers.

    Attributes:
        token_ids: ids of the tokens that the loss covers, i64 on the device; None for all.
        cap: soft cap of the logits, None for none.
        dtype: dtype of the product.
        rows: embedding rows of `token_ids` if the embedding is fixed, None to look them up.
        vocabulary: size of the whole vocabulary.
    """

    token_ids: torch.Tensor | None
    cap: float | None
    dtype: torch.dtype
    rows: torch.Tensor | None
    vocabulary: int

    @property
    def width(self) -> int:
        """Number of tokens that the loss covers."""
        return self.vocabulary if self.token_ids is None else len(self.token_ids)

    def rows_of(self, embedding: torch.Tensor) -> torch.Tensor:
        """The embedding rows of the tokens that the loss covers."""
        if self.rows is not None:
            return self.rows
        return embedding if self.token_ids is None else embedding[self.token_ids]

    def divergence(
        self, student: torch.Tensor, teacher: torch.Tensor, *, student_rows: torch.Tensor, teacher_rows: torch.Tensor
    ) -> Any:
        """Kullback-Leibler divergence from the teacher, summed over tokens, nats.

        Args:
            student: inputs of the student's head, f32 [tokens, hidden].
            teacher: inputs of the teacher's head, in the same shape.
            student_rows: rows of the student's head.
            teacher_rows: rows of the teacher's head.
        """
        import torch

        def part(ours: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                target = logits(theirs, teacher_rows, self.cap, self.dtype).log_softmax(-1)
            output = logits(ours, student_rows, self.cap, self.dtype).log_softmax(-1)
            return (target.exp() * (target - output)).sum()

        return _by_slabs(part, self.width, student, teacher)

    def sampled_divergence(
        self, student: torch.Tensor, ids: torch.Tensor, shares: torch.Tensor, *, student_rows: torch.Tensor
    ) -> Any:
        """Divergence from samples of the teacher's distribution, summed over tokens, nats.

        Args:
            student: inputs of the student's head, f32 [tokens, hidden].
            ids: indices of the sampled tokens among those that the loss covers, [tokens, samples].
            shares: probabilities of the sampled tokens, [tokens, samples].
            student_rows: rows of the student's head.
        """

        def part(ours: torch.Tensor, at: torch.Tensor, target: torch.Tensor) -> Any:
            output = logits(ours, student_rows, self.cap, self.dtype).log_softmax(-1).gather(1, at.long())
            return (target * (target.clamp_min(1e-30).log() - output)).sum()

        return _by_slabs(part, self.width, student, ids, shares)


def _by_slabs(part: Callable[..., Any], width: int, *tensors: torch.Tensor) -> Any:
    """Sum a function over slabs of tokens; the backward pass recomputes a slab's logits instead of keeping them."""
    import torch
    from torch.utils.checkpoint import checkpoint

    step = max(1, SLAB // width)
    if len(tensors[0]) <= step:
        return part(*tensors)
    total: Any = 0.0
    for first in range(0, len(tensors[0]), step):
        slab = [tensor[first : first + step] for tensor in tensors]
        recomputed = torch.is_grad_enabled()
        total = total + (checkpoint(part, *slab, use_reentrant=False) if recomputed else part(*slab))
    return total
