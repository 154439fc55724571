"""Measures of a model's predictions: perplexity, KL divergence from a reference, agreement with it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Score:
    """Measures of every scored token.

    Attributes:
        surprise: -log p of the token in nats, f64 [scored].
        kl: Kullback-Leibler divergence KL(reference || model) of the predictions in nats, f64 [scored]; zeros for the
            reference itself.
        same: Whether model and reference hold the same token for the likeliest, bool [scored].
    """

    surprise: F64
    kl: F64
    same: NDArray[np.bool_]

    def part(self, tokens: slice) -> Score:
        """Measures of some of the tokens."""
        return Score(self.surprise[tokens], self.kl[tokens], self.same[tokens])

    @property
    def perplexity(self) -> float:
        """Exponential of the mean surprise."""
        return math.exp(self.surprise.mean())

    @property
    def perplexity_stderr(self) -> float:
        """Standard error of the perplexity, to first order, tokens taken as independent (as llama-perplexity does)."""
        return self.perplexity * _stderr(self.surprise)

    @property
    def kl_mean(self) -> float:
        """Mean KL divergence."""
        return float(self.kl.mean())

    @property
    def kl_stderr(self) -> float:
        """Standard error of the mean KL divergence, tokens taken as independent."""
        return _stderr(self.kl)

    def kl_at(self, percent: float) -> float:
        """KL divergence that so many percent of the tokens do not exceed."""
        return float(np.percentile(self.kl, percent))

    def changes(self, reference: Score) -> F64:
        """What quantization changes in the probability of every scored token (llama-perplexity's Δp), f64 [scored]."""
        changes: F64 = np.exp(-self.surprise) - np.exp(-reference.surprise)
        return changes

    @property
    def top1(self) -> float:
        """Share of tokens for which model and reference hold the same token for the likeliest."""
        return float(self.same.mean())


def joined(parts: Sequence[Score]) -> Score:
    """Measures of some tokens and of those that follow them as one."""
    surprise, kl, same = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("surprise", "kl", "same")
    )
    return Score(surprise, kl, same)


def _stderr(values: F64) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else 0.0
