"""Everything a user may ask of a conversion."""

from __future__ import annotations

from dataclasses import dataclass

from gemmaq.planning.recipe import Recipe

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


@dataclass(frozen=True, slots=True)
class Request:
    """Everything a user may ask of a conversion.

    Attributes:
        recipe: types and methods.
        to: names of containers, in order.
        portable: scales that every container holds exactly.
        scales: their type where a container has them in arrays of their own, `bf16` or `f16`.
        mmproj: type of the vision side where a container leaves a choice, None to leave it out.
        shard_bytes: that a file may have at most, None for what each container takes.
        calibration: what calibrated methods go by, None where there are none.
    """

    recipe: Recipe
    to: tuple[str, ...]
    portable: bool = False
    scales: str = "bf16"
    mmproj: str | None = "f16"
    shard_bytes: int | None = None
    calibration: Calibration | None = None
