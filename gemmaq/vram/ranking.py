"""What to run on a card, or on several together: models and types that fit, the best first.

The rule: types of at least four bits per weight before smaller ones, then the model with more parameters, then the
larger type. It counts sizes only: what a type costs in quality is said in words (`planning.uses`) and by what was
measured of it on one model (`planning.losses`), as no figure of one model holds for another.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gemmaq.encodings import ENCODINGS
from gemmaq.models.families import of_size, size_by_name
from gemmaq.planning.uses import use_of
from gemmaq.vram.cards import Card
from gemmaq.vram.commands import command, file_of
from gemmaq.vram.fit import Fit, Result
from gemmaq.vram.placement import Placement, place

_LEAST_BITS = 4.0
RULE = "4 bits or more first, then the larger model, then the larger type"


@dataclass(frozen=True, slots=True)
class Row:
    """A model in a type that fits a card.

    Attributes:
        result: Its memory, and how it fits; the card is the one of that number.
        card: Number of the card among those of the result.
        shared: The cards that it stands for, where several share the model; empty for one, or several of a kind.
    """

    result: Result
    card: int
    shared: tuple[Card, ...] = ()

    @property
    def fit(self) -> Fit:
        """How it fits the card."""
        return self.result.fits[self.card]

    @property
    def parameters(self) -> int:
        """Parameters of the text model."""
        return self.result.build.model.config.parameters

    @property
    def command(self) -> str | None:
        """Command line that runs it, None for an engine without."""
        build, engine = self.result.build, self.result.engine
        file = file_of(engine, build.model.name, build.quant)
        return command(engine, file, self.result.load, self.placement, cards=self.fit.card.count)

    @property
    def placement(self) -> Placement | None:
        """Where its layers lie on cards that share it, None for one card or several of a kind."""
        result = self.result
        return place(result.engine, result.build, result.load, self.shared) if self.shared else None

    @property
    def bits(self) -> float:
        """Bits per weight, all tensors of the text model."""
        return 8 * self.result.build.model.weights / self.parameters

    @property
    def use(self) -> str:
        """What the type is good for."""
        quant = self.result.build.quant
        body = quant if quant in ENCODINGS else quant.rsplit("_", 1)[0]
        return use_of(quant, body if body in ENCODINGS else "q4_0", cpus=False)

    @property
    def on_qat(self) -> str | None:
        """What the publisher says of its QAT checkpoints, where the type is theirs; None if nothing."""
        size = size_by_name(self.result.build.model.name)
        figures = of_size(size).published if size and self.result.build.quant == "q4_0" else None
        return (figures.qat if figures else "") or None


def ranked(results: Iterable[Result], card: int, shared: Sequence[Card] = ()) -> Sequence[Row]:
    """Those that fit a card, the best first.

    Args:
        results: Results of models in their types.
        card: Number of the card among those of every result.
        shared: Cards that it stands for, where several share a model.
    """
    rows = [Row(result, card, tuple(shared)) for result in results if result.fits[card].fits]

    def order(row: Row) -> tuple[bool, int, int]:
        return row.bits < _LEAST_BITS, -row.parameters, -row.result.build.model.weights

    return sorted(rows, key=order)
