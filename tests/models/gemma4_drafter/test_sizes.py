"""Published drafters: as many parameters as their cards say, and each fits its target."""

from __future__ import annotations

import pytest

from gemmaq.models.families import of_size, require_size, size_by_name, size_label, sizes
from gemmaq.models.gemma4_drafter import FAMILY
from gemmaq.models.gemma4_drafter.sizes import SIZES

MILLIONS = {"E2B": 77, "E4B": 78, "12B": 423, "26B-A4B": 420, "31B": 470}
"""Without the centroids, another half million of E2B's and E4B's."""


@pytest.mark.parametrize("size", SIZES, ids=lambda size: size.label)
def test_parameters_are_those_of_the_cards(size) -> None:
    target = require_size(size.label.removesuffix("-it-assistant"))
    target = target if target.family == "gemma4" else require_size(f"gemma-4-{target.label}")
    assert round(size.config.parameters / 1e6) == MILLIONS[target.label]
    assert size_label(FAMILY, size.config) == f"{MILLIONS[target.label]}M"
    assert FAMILY.misfit(size.config, of_size(target), target.config) is None


def test_they_are_found_by_name_and_not_among_the_models() -> None:
    assert size_by_name("google/gemma-4-12B-it-assistant") is SIZES[2]
    assert not set(SIZES) & set(sizes())


def test_the_published_26b_drafter_has_its_bytes() -> None:
    """unsloth's mtp-gemma-4-26B-A4B-it.gguf: 251,937,728 bytes, of which Q4_0 tensors and norms are all but 16 MB."""
    from gemmaq.encodings import ENCODINGS
    from gemmaq.models.gemma4_drafter.names import shapes

    total = 0
    for _, shape in shapes(SIZES[3].config):
        encoding = ENCODINGS["q4_0" if len(shape) == 2 else "f32"]
        total += shape[0] * encoding.row_bytes(shape[1]) if len(shape) == 2 else shape[0] * 4
    assert 0 < 251_937_728 - total < 16 << 20
