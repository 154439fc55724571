"""A published size of a model family."""

from __future__ import annotations

from dataclasses import dataclass

from gemmaq.models.config import TextConfig
from gemmaq.models.vision_config import VisionConfig


@dataclass(frozen=True, slots=True)
class Size:
    """A published size.

    Attributes:
        family: Name of its family (`gemma3`).
        name: Name of the model (`gemma-3-4b`).
        label: Size as model names spell it (`4B`).
        nominal: Round number of parameters that the publisher's memory table is computed with.
        vision: Parameters of the vision tower, 0 for a text-only size.
        projector: Parameters of the vision projector, 0 for a text-only size.
        config: Dimensions of the text model.
        vision_config: Dimensions of the vision tower, None for a text-only size.
    """

    family: str
    name: str
    label: str
    nominal: float
    vision: int
    projector: int
    config: TextConfig
    vision_config: VisionConfig | None
