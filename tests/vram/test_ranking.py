"""What to run on a card, by the stated rule."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gemmaq.vram import Load, cards, fit
from gemmaq.vram.placement import fit_together, place
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


def test_what_a_publisher_says_of_its_qat_checkpoints_stands_beside_their_type() -> None:
    for name, quant, said in (("4b", "q4_0", True), ("4b", "q8_0", False), ("gemma-4-12B", "q4_0", False)):
        (row,) = rows("24GB", (name, quant))
        assert ("54 %" in (row.on_qat or "")) == said
        assert "ARM" not in row.use


def test_cards_together_get_a_command_that_divides_the_layers() -> None:
    pair = [cards.find("7GB"), cards.find("5GB")]
    made = build("12b")
    alone = fit.result(LLAMA, made, Load(4096), cards=[], others=[])
    together = fit_together(LLAMA, made, Load(4096), pair, [build("12b", "q8_0"), made])
    (row,) = ranked([replace(alone, fits=(together,))], 0, pair)
    assert row.placement is not None and row.fit.room == row.placement.room >= 0
    assert row.fit.card.name == "7 GB + 5 GB" and row.fit.card.count == 2
    assert f"-ts {','.join(map(str, row.placement.split))}" in (row.command or "")
    assert together.max_quant == "q4_0" and together.capacity == 12 << 30

    def fits(context: int) -> bool:
        return place(LLAMA, made, Load(context), pair).fits

    assert fits(together.max_context) and not fits(together.max_context + 256)
