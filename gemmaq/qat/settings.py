"""Everything that decides what training does, in one record."""

from __future__ import annotations

from dataclasses import dataclass

LEARNING_RATE = 1e-5
STEPS = 500
VOCABULARY = 16384


@dataclass(frozen=True, slots=True)
class Settings:
    """How a model is trained.

    Attributes:
        grid: the weights are to lie on.
        activations: whether inputs of matrices are rounded to eight bits too.
        steps: of the optimizer.
        batch: sequences that go through the model together, over all ranks.
        accumulate: such batches a step.
        context: tokens a sequence.
        learning_rate: at its height.
        warm_up: steps until it is there; it falls to 5 % at the end.
        clip: norm that gradients are cut to.
        seed: of the order of the text, of dither and of samples.
        vocabulary: most frequent tokens of the text that the loss is over, 0 for all there are.
        samples: tokens of the teacher's distribution that are drawn beforehand, 0 to have all of it at hand.
        embedding: whether the embedding is trained.
        norms: whether the norms are.
        dtype: of the matrix products, `bf16` or `f32`.
        recompute: whether activations are computed a second time instead of kept.
        dither: whether a quantized source gets noise.
    """

    grid: str = "q4_0"
    activations: bool = False
    steps: int = STEPS
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
        """That a step sees."""
        return self.batch * self.accumulate

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0: a linear rise, then a linear fall to a twentieth."""
        if step < self.warm_up:
            return self.learning_rate * (step + 1) / self.warm_up
        left = (self.steps - step) / max(1, self.steps - self.warm_up)
        return self.learning_rate * max(0.05, left)
