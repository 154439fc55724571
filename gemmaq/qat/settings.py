"""Hyperparameters: every setting that decides the result of a training."""

from __future__ import annotations

from dataclasses import dataclass

LEARNING_RATE = 1e-5
STEPS = 500
VOCABULARY = 16384
_FINAL_SHARE = 0.05
"""The learning rate at the end, as a share of its peak."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Hyperparameters of a training.

    Attributes:
        grid: name of the grid that the weights are trained for.
        activations: whether the inputs of matrices are rounded to eight bits as well.
        batch: sequences per forward pass, over all processes.
        accumulate: batches per optimizer step.
        context: tokens per sequence.
        learning_rate: peak of the learning rate.
        warm_up: steps until the learning rate reaches its peak.
        clip: norm that gradients are clipped to.
        seed: seed of the data order, the dither and the samples.
        vocabulary: size of the loss's vocabulary, the most frequent tokens of the text; 0 for the whole vocabulary.
        samples: tokens sampled from the teacher's distribution per position before training; 0 to run the teacher
            beside the student.
        embedding: whether the embedding is trained.
        norms: whether the norm weights are trained.
        dtype: dtype of matrix products, `bf16` or `f32`.
        recompute: whether the backward pass recomputes activations instead of keeping them.
        dither: whether a source that was quantized before gets noise.
    """

    grid: str = "q4_0"
    activations: bool = False
    batch: int = 2
    accumulate: int = 1
    context: int = 128
    learning_rate: float = LEARNING_RATE
    warm_up: int = 4
    clip: float = 1.0
    seed: int = 0
    vocabulary: int = VOCABULARY
    samples: int = 0
    embedding: bool = False
    norms: bool = False
    dtype: str = "bf16"
    recompute: bool = False
    dither: bool = True

    @property
    def sequences(self) -> int:
        """Sequences per optimizer step."""
        return self.batch * self.accumulate

    @property
    def tokens(self) -> int:
        """Tokens per optimizer step."""
        return self.sequences * self.context

    def rate(self, step: int, steps: int | None) -> float:
        """The learning rate of a step: a linear rise to the peak, then a linear fall to a twentieth of it.

        Args:
            step: number of the step, from 0.
            steps: steps of the training, None while the time budget has not decided: the rate stays at its peak.
        """
        if step < self.warm_up:
            return self.learning_rate * (step + 1) / self.warm_up
        if steps is None:
            return self.learning_rate
        left = (steps - step) / max(1, steps - self.warm_up)
        return self.learning_rate * max(_FINAL_SHARE, left)
