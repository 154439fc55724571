"""What to run on a card, by the stated rule."""

from __future__ import annotations

import pytest

from gemmaq.vram import Load, cards, fit
from gemmaq.vram.ranking import Row, ranked
from placements import LLAMA, build


def rows(card: str, *models: tuple[str, str]) -> list[Row]:
    made = [
        fit.result(LLAMA, build(name, quant), Load(4096), cards=[cards.find(card)], others=[]) for name, quant in models
    ]
    return list(ranked(made, 0))


def test_the_larger_model_comes_first_then_the_larger_type_then_types_below_four_bits() -> None:
    found = rows("6GB", ("1b", "q4_0"), ("4b", "q2_k"), ("12b", "q4_0"), ("1b", "q8_0"), ("4b", "q4_0"))
    order = [(row.result.build.model.name, row.result.build.quant) for row in found]
    assert order == [
        ("gemma-3-4b", "q4_0"),
        ("gemma-3-1b", "q8_0"),
        ("gemma-3-1b", "q4_0"),
        ("gemma-3-4b", "q2_k"),
    ]
    assert all(row.fit.room >= 0 for row in found)
    assert found[-1].bits < 4 < found[0].bits


@pytest.mark.parametrize(("quant", "use"), [("q4_k_m", "a good default"), ("q8_0", "nearly the original")])
def test_what_a_row_says(quant: str, use: str) -> None:
    (row,) = rows("24GB", ("4b", quant))
    assert row.use == use
    assert row.command == f"llama-server -m gemma-3-4b-{quant.upper()}.gguf -c 4096 -ngl 999 -fa on -np 1"
    assert row.bits == 8 * row.result.build.model.weights / row.parameters


def test_nothing_fits_a_small_card() -> None:
    assert rows("1GB", ("4b", "q4_0")) == []
