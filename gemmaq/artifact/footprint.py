"""Memory of a model while it runs, as cards show it. Floors above know the engines and give the figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from gemmaq.artifact.description import Model


@dataclass(frozen=True, slots=True)
class Footprint:
    """Memory of a model, by context and card.

    Attributes:
        engine: name of the runtime, as its makers write it; empty if nothing is known.
        totals: tokens of context -> bytes.
        fits: name of a card -> contexts with which the model fits it.
        with_towers: whether the towers are part of the totals.
        holds: name of a card -> bytes of the largest weights that it holds with the shortest of the contexts.
    """

    engine: str = ""
    totals: Mapping[int, int] = field(default_factory=dict)
    fits: Mapping[str, frozenset[int]] = field(default_factory=dict)
    with_towers: bool = False
    holds: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Memory:
    """What a card says of memory.

    Attributes:
        figures: figures of a model.
        details: a text about them, by part.
    """

    figures: Callable[[Model], Footprint]
    details: Callable[[Model], str]


UNKNOWN = Memory(lambda _: Footprint(), lambda _: "")
"""For a card that says nothing of memory."""
