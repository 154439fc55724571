"""Whether a model fits a card: by how much, up to which context, and in which type at the most."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from gemmaq.vram import Engine, Load, estimate, longest
from gemmaq.vram.cards import Card
from gemmaq.vram.weights import Build

_STEP = 256


@dataclass(frozen=True, slots=True)
class Fit:
    """A model on a card.

    Attributes:
        card: the card.
        capacity: bytes of it that the engine lets itself use.
        room: bytes left, negative where they are short.
        max_context: most tokens that fit, in steps of 256; 0 where not even the weights do.
        max_quant: largest type that fits at the context asked for, None where none does.
    """

    card: Card
    capacity: int
    room: int
    max_context: int
    max_quant: str | None

    @property
    def fits(self) -> bool:
        """Whether it does at the context asked for."""
        return self.room >= 0


def fit(engine: Engine, build: Build, load: Load, card: Card, others: Iterable[Build]) -> Fit:
    """How a model fits a card.

    Args:
        engine: that runs it.
        build: the model in the types chosen.
        load: how it is run.
        card: or several cards, over which layers are spread.
        others: the same model in other types, the largest first.
    """
    room = _room(engine, build, load, card)
    largest = next((other.quant for other in others if _room(engine, other, load, card) >= 0), None)
    return Fit(card, _capacity(engine, card), room, _max_context(engine, build, load, card), largest)


def _room(engine: Engine, build: Build, load: Load, card: Card) -> int:
    """Bytes left; every card has a compute buffer and a context of its own."""
    needed = estimate(engine, build.model, load)
    spare = (card.count - 1) * (needed.compute + needed.overhead)
    return _capacity(engine, card) - needed.total - spare


def _capacity(engine: Engine, card: Card) -> int:
    return int(card.usable * engine.share)


def _max_context(engine: Engine, build: Build, load: Load, card: Card) -> int:
    def fits(steps: int) -> bool:
        context = min(steps * _STEP, longest(build.model, load))
        return _room(engine, build, replace(load, context=context), card) >= 0

    low, high = 0, -(-longest(build.model, load) // _STEP)
    if fits(high):
        return longest(build.model, load)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low * _STEP
