"""Calibration: what a model's matrices are really multiplied with decides how their codes are chosen.

Ahead of writing, a plan is completed with what its methods need: the mean squared inputs of every matrix
(`importance`), or the very codes (`gptq`), found layer by layer.
"""

from __future__ import annotations

from dataclasses import dataclass

TOKENS = 16384
CONTEXT = 512


@dataclass(frozen=True, slots=True)
class Calibration:
    """What codes were calibrated on, and how: all that is needed to do it again.

    Attributes:
        texts: names of the files, without their folders; empty if an importance matrix was given.
        digest: SHA-256 over the texts, or of the importance matrix, in hex.
        tokens: of the texts that are used, at most.
        context: tokens of a sequence.
        damping: of the feedback, see `methods.gptq.Settings`.
        order: of the columns, likewise.
    """

    texts: tuple[str, ...]
    digest: str
    tokens: int = TOKENS
    context: int = CONTEXT
    damping: float = 0.01
    order: str = "importance"
