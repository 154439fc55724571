"""A published size of a model family."""

from __future__ import annotations

from dataclasses import dataclass

from gemmaq.models.config import TextConfig
from gemmaq.models.towers_config import TowersConfig


@dataclass(frozen=True, slots=True)
class Size:
    """A published size.

    Attributes:
        family: Name of its family (`gemma3`).
        name: Name of the model (`gemma-3-4b`).
        label: Size as model names spell it (`4B`).
        nominal: Round number of parameters that the publisher's memory table is computed with.
        towers: Parameters of the towers, 0 for a text-only size.
        projector: Parameters of the projectors behind them, 0 for a text-only size.
        config: Dimensions of the text model.
        towers_config: Dimensions of the towers, None for a text-only size.
        aliases: Names of other published models of the same dimensions (`medgemma-4b`).
    """

    family: str
    name: str
    label: str
    nominal: float
    towers: int
    projector: int
    config: TextConfig
    towers_config: TowersConfig | None
    aliases: tuple[str, ...] = ()
