"""Measure candidates on text that nothing was calibrated or chosen on, of several kinds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gemmaq.calibration.resources import Resources
from gemmaq.checkpoint import Checkpoint
from gemmaq.evaluate import cache
from gemmaq.evaluate.chunks import Chunks, cut
from gemmaq.evaluate.run import evaluate
from gemmaq.evaluate.score import Score
from gemmaq.progress import ProgressCallback

if TYPE_CHECKING:
    from gemmaq.inference.documents import Text

CONTEXT = 512
TOKENS = 1024
"""Scored tokens of each kind of text."""


@dataclass(frozen=True, slots=True)
class Check:
    """Text to measure candidates on.

    Attributes:
        texts: kind of text -> text.
        tokens: most scored tokens of each kind.
        context: tokens in a chunk.
        cached: whether what the source computes is kept for the next time.
    """

    texts: Mapping[str, Text]
    tokens: int = TOKENS
    context: int = CONTEXT
    cached: bool = True


@dataclass(frozen=True, slots=True)
class Measured:
    """How a candidate predicts each kind of text.

    Attributes:
        scores: kind of text -> measures of its tokens.
    """

    scores: Mapping[str, Score]

    @property
    def kl(self) -> float:
        """Mean KL divergence from the source, in nats, every kind counting alike."""
        return float(np.mean([score.kl_mean for score in self.scores.values()]))

    @property
    def stderr(self) -> float:
        """Standard error of that, tokens taken as independent."""
        return float(np.sqrt(sum(score.kl_stderr**2 for score in self.scores.values()))) / len(self.scores)

    @property
    def top1(self) -> float:
        """Share of tokens for which its likeliest token is that of the source, every kind counting alike."""
        return float(np.mean([score.top1 for score in self.scores.values()]))

    @property
    def perplexity(self) -> float:
        """Perplexity over all tokens, every kind counting alike."""
        return float(np.exp(np.mean([score.surprise.mean() for score in self.scores.values()])))


def held_out() -> Check:
    """The check on text that comes with gemmaq for this purpose alone."""
    from gemmaq.inference import documents

    return Check({kind: documents.held_out([kind]) for kind in documents.KINDS})


def measure(
    reference: Checkpoint,
    candidates: Sequence[Checkpoint],
    check: Check,
    *,
    resources: Resources,
    progress: ProgressCallback,
) -> list[Measured]:
    """Score candidates against the source.

    Args:
        reference: the source.
        candidates: the same model in other types.
        check: text.
        resources: where to compute.
        progress: called after every layer and every slab of the vocabulary.

    Raises:
        InputError: a text is shorter than a chunk, or activations are not finite.
    """
    from gemmaq.inference.device import open_device
    from gemmaq.inference.tokenize import load_encoder

    encoder = load_encoder(reference)
    context = min(check.context, reference.config.max_position_embeddings)
    parts = {
        kind: cut(text, encoder, context=context, tokens=check.tokens) for kind, text in sorted(check.texts.items())
    }
    whole = Chunks(
        np.concatenate([part.tokens for part in parts.values()]), sum(part.available for part in parts.values())
    )
    folder: Path | None = cache.default_folder() if check.cached else None
    with open_device(resources.device, resources.threads) as device:
        scores = evaluate([reference, *candidates], whole, device=device, progress=progress, cache_folder=folder)
    return [Measured(_by_kind(score, parts)) for score in scores[1:]]


def _by_kind(score: Score, parts: Mapping[str, Chunks]) -> dict[str, Score]:
    """A score of all texts, one after the other, as one of each kind."""
    found, at = {}, 0
    for kind, part in parts.items():
        own = slice(at, at + part.scored)
        found[kind] = Score(score.surprise[own], score.kl[own], score.same[own])
        at += part.scored
    return found
