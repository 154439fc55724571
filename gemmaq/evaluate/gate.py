"""A gate for pipelines: what a model may lose at most."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from gemmaq.errors import UsageError
from gemmaq.evaluate.result import format_kl
from gemmaq.evaluate.score import Score


@dataclass(frozen=True, slots=True)
class Gate:
    """Limits of a score; None for no limit.

    Attributes:
        max_kl: Largest mean KL divergence, in nats.
        min_top1: Smallest share of tokens for which model and reference hold the same token for the likeliest.
    """

    max_kl: float | None = None
    min_top1: float | None = None

    def __bool__(self) -> bool:
        return self.max_kl is not None or self.min_top1 is not None

    def missed(self, score: Score) -> list[str]:
        """A phrase for each limit that a score misses; none if it passes."""
        found = []
        if self.max_kl is not None and not score.kl_mean <= self.max_kl:
            found.append(f"mean KL {format_kl(score.kl_mean)} is above {self.max_kl:g}")
        if self.min_top1 is not None and not score.top1 >= self.min_top1:
            found.append(f"top-1 {100 * score.top1:.2f} % is below {100 * self.min_top1:g} %")
        return found


def gate(max_kl: float | None, min_top1: str | None) -> Gate:
    """Limits as users type them.

    Args:
        max_kl: A mean KL divergence in nats.
        min_top1: `98%` or `0.98`.

    Raises:
        UsageError: One of them cannot be a limit.
    """
    if max_kl is not None and not (math.isfinite(max_kl) and max_kl > 0):
        raise UsageError(f"--max-kl {max_kl:g} is no limit", "a number above 0, in nats: 0.05")
    return Gate(max_kl, None if min_top1 is None else _share(min_top1))


def _share(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?|\.\d+)\s*(%?)", text.strip(), re.ASCII)
    value = float(match[1]) / (100 if match[2] else 1) if match else math.nan
    if not 0 < value <= 1:
        raise UsageError(f"--min-top1 {text!r} is not a share of the tokens", "write 98% or 0.98")
    return value
