"""Mean KL divergence from a model's predictions, over the tokens that are likeliest in the text.

The 16,384 likeliest of 262,144 tokens have 99.1 % of the probability in the shipped text; theirs is renormalized. That
is a sixteenth of the work (tests/benchmarks/sensitivity_270m.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gemmaq.errors import InputError
from gemmaq.inference.device import aligned

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from gemmaq.checkpoint import Tensor
    from gemmaq.encodings import F32
    from gemmaq.inference.decoder import Decoder

LIKELIEST = 16384
"""Tokens of the vocabulary that a divergence covers."""
_SLAB = 2048
"""Rows of the vocabulary that a worker takes at a time."""
_BLOCK = 128
"""Tokens of the text that it takes at a time."""


def tensor_of(decoder: Decoder) -> Tensor:
    """The output head of a model, or the embedding that serves as it."""
    return decoder.checkpoint.head or decoder.checkpoint.embedding


@dataclass(frozen=True, slots=True)
class Reference:
    """Predictions of the unquantized model.

    Attributes:
        decoder: the model.
        ids: tokens of the vocabulary that divergences cover, ascending, i64 [width].
        mass: their part of the probability, mean over the text.
        rows: their rows of the head, f32 [width, hidden].
        log: logarithms of their probabilities, renormalized, f32 [tokens, width].
    """

    decoder: Decoder
    ids: NDArray[np.int64]
    mass: float
    rows: torch.Tensor
    log: torch.Tensor

    def divergence(self, states: torch.Tensor, rows: torch.Tensor | None = None) -> float:
        """Mean KL divergence of a model from this one, in nats, at least 0.

        Args:
            states: inputs of its head, f32 [tokens, hidden].
            rows: rows of its head, None for those of this model.

        Raises:
            InputError: it is not finite.
        """
        head, cap = self.rows if rows is None else rows, self.decoder.checkpoint.config.final_logit_softcapping

        def run(at: int) -> float:
            target = self.log[at : at + _BLOCK]
            output = _logits(states[at : at + _BLOCK], head, cap).log_softmax(-1)
            return float(output.neg_().add_(target).mul_(target.exp()).sum(-1).double().sum())

        total = math.fsum(self.decoder.device.map(run, range(0, len(states), _BLOCK))) / len(states)
        if not math.isfinite(total):
            raise InputError("logits are not finite", "the weights are damaged", path=self.decoder.checkpoint.location)
        return max(total, 0.0)


def _logits(states: torch.Tensor, rows: torch.Tensor, cap: float | None) -> torch.Tensor:
    logits = states @ rows.T
    return logits if cap is None else logits.div_(cap).tanh_().mul_(cap)


def reference(decoder: Decoder, states: torch.Tensor, width: int = LIKELIEST) -> Reference:
    """What the unquantized model predicts.

    Args:
        decoder: the model.
        states: inputs of its head, f32 [tokens, hidden].
        width: tokens of the vocabulary that divergences cover.
    """
    ids, mass = likeliest(decoder, states, width)
    rows = rows_of(decoder, lambda first, count: _read(decoder, first, count), ids)
    cap, log = decoder.checkpoint.config.final_logit_softcapping, aligned(len(states), len(ids))
    log = log.to(states.device)

    def run(at: int) -> None:
        log[at : at + _BLOCK] = _logits(states[at : at + _BLOCK], rows, cap).log_softmax(-1)

    decoder.device.map(run, range(0, len(states), _BLOCK))
    return Reference(decoder, ids, mass, rows, log)


def likeliest(decoder: Decoder, states: torch.Tensor, width: int) -> tuple[NDArray[np.int64], float]:
    """The tokens of the vocabulary that get the most probability in the text.

    Args:
        decoder: the model.
        states: inputs of its head, f32 [tokens, hidden].
        width: number of tokens.

    Returns:
        Their ids, ascending, i64 [width], and their part of the probability.
    """
    import torch

    size, cap = tensor_of(decoder).rows, decoder.checkpoint.config.final_logit_softcapping
    if width >= size:
        return np.arange(size), 1.0

    def over(first: int) -> torch.Tensor:
        rows = torch.from_numpy(_read(decoder, first, min(_SLAB, size - first))).to(states.device)
        return _logits(states, rows, cap)

    starts = range(0, size, _SLAB)
    parts = decoder.device.map(lambda first: over(first).logsumexp(-1).double(), starts)
    total = torch.stack(parts).logsumexp(0)

    def probability(first: int) -> torch.Tensor:
        return over(first).sub_(total[:, None].float()).exp_().sum(0).double().cpu()

    sums = torch.cat(decoder.device.map(probability, starts)).numpy()
    ids = np.sort(np.argsort(-sums, kind="stable")[:width])
    return ids, float(sums[ids].sum() / len(states))


def _read(decoder: Decoder, first: int, count: int) -> F32:
    rows: F32 = aligned(count, tensor_of(decoder).columns).numpy()
    rows[:] = decoder.weights(tensor_of(decoder), first, count, decoder.reader)
    return rows


def rows_of(decoder: Decoder, read: Callable[[int, int], F32], ids: NDArray[np.int64]) -> torch.Tensor:
    """Some rows of the head, f32 [len(ids), hidden] on the device.

    Args:
        decoder: the model.
        read: gives rows from a first one on, f32 [count, hidden].
        ids: numbers of the rows, ascending.
    """
    import torch

    rows = aligned(len(ids), tensor_of(decoder).columns)
    starts = np.unique(ids // _SLAB) * _SLAB

    def take(first: int) -> None:
        low, high = np.searchsorted(ids, [first, first + _SLAB])
        last = int(ids[high - 1])
        rows[low:high] = torch.from_numpy(read(int(ids[low]), last + 1 - int(ids[low])))[ids[low:high] - ids[low]]

    decoder.device.map(take, (int(first) for first in starts))
    return rows.to(decoder.device.torch_device)
