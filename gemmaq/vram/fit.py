"""Whether a model fits a card: how much memory is left, up to which context, and in which type at most."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from gemmaq.vram import Engine, Estimate, Load, estimate, longest
from gemmaq.vram.cards import Card
from gemmaq.vram.weights import Build

_STEP = 256


@dataclass(frozen=True, slots=True)
class Fit:
    """A model on a card.

    Attributes:
        card: The card.
        capacity: Bytes of it that the engine uses at most.
        room: Bytes left, negative if the model does not fit.
        max_context: Most tokens of context that fit, in steps of 256; 0 if not even the weights do.
        max_quant: Largest type that fits at this context, None if none does.
    """

    card: Card
    capacity: int
    room: int
    max_context: int
    max_quant: str | None

    @property
    def fits(self) -> bool:
        """Whether the model fits at this context."""
        return self.room >= 0


@dataclass(frozen=True, slots=True)
class Result:
    """Memory of a model in one type at one context, and how it fits every card."""

    engine: Engine
    build: Build
    load: Load
    estimate: Estimate
    fits: tuple[Fit, ...]


def result(engine: Engine, build: Build, load: Load, *, cards: Sequence[Card], others: Sequence[Build]) -> Result:
    """Estimate a model's memory and fit it on cards.

    Args:
        engine: Engine that runs it.
        build: The model in the chosen types.
        load: Settings of the run.
        cards: Cards; layers are spread over several of a kind.
        others: The same model in other types, the largest first.

    Raises:
        UsageError: The model or the engine does not support these settings.
    """
    needed = estimate(engine, build.model, load)
    fits = tuple(fit(engine, build, load, card=card, others=others) for card in cards)
    return Result(engine, build, load, needed, fits)


def fit(engine: Engine, build: Build, load: Load, *, card: Card, others: Sequence[Build]) -> Fit:
    """How a model fits a card; the parameters are those of `result`."""
    left = room(engine, build, load, card)
    largest = next((other.quant for other in others if room(engine, other, load, card) >= 0), None)
    context = max_context(build, load, lambda other: room(engine, build, other, card) >= 0)
    return Fit(card, capacity(engine, card), left, context, largest)


def room(engine: Engine, build: Build, load: Load, card: Card) -> int:
    """Bytes left on a card, or on several: each has compute buffers and a context of its own; negative if too few."""
    needed = estimate(engine, build.model, load)
    spare = (card.count - 1) * (needed.compute + needed.draft_compute + needed.overhead)
    return capacity(engine, card) - needed.total - spare


def capacity(engine: Engine, card: Card) -> int:
    """Bytes of a card that an engine uses at most."""
    return int(card.usable * engine.share)


def max_context(build: Build, load: Load, fits: Callable[[Load], bool]) -> int:
    """Most tokens of context that fit, in steps of 256; 0 if none do.

    Args:
        build: The model in its types.
        load: Settings of the run; `context` does not matter.
        fits: Whether the model fits with these settings.
    """

    def fit_steps(steps: int) -> bool:
        return fits(replace(load, context=min(steps * _STEP, longest(build.model, load))))

    low, high = 0, -(-longest(build.model, load) // _STEP)
    if fit_steps(high):
        return longest(build.model, load)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fit_steps(middle) else (low, middle)
    return low * _STEP
