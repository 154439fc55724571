"""Drafters that belong to a model, and those that do not, with the reason."""

from __future__ import annotations

from dataclasses import replace

import pytest

import gemma4
from gemma4_drafter import KINDS
from gemmaq.models import gemma3
from gemmaq.models import gemma4 as target
from gemmaq.models.gemma4_drafter import FAMILY


@pytest.mark.parametrize("kind", KINDS)
def test_a_drafter_belongs_to_its_target(kind: str) -> None:
    assert FAMILY.misfit(KINDS[kind], target.FAMILY, gemma4.KINDS[kind]) is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"hidden_size": 320}, "it is for a target of width 256, not 320"),
        ({"vocab_size": 500}, "it is for a vocabulary of 512, not 500"),
        ({"num_key_value_heads": 2}, "it is for sliding-window layers with keys of 256, not 128"),
        ({"num_global_key_value_heads": 1}, "it is for global layers with keys of 256, not 128"),
        ({"head_dim": 32, "num_key_value_heads": 8}, "it is for sliding-window layers with heads of 64, not 32"),
        ({"sliding_window": 32}, "it is for sliding-window layers with a window of 16, not 32"),
        ({"layer_pattern": (False,) * 6}, "it is for sliding-window layers with keys of 256, not none"),
    ],
)
def test_a_drafter_of_another_target_is_told_apart(change: dict[str, object], reason: str) -> None:
    other = replace(gemma4.DENSE, **change)  # type: ignore[arg-type]
    assert FAMILY.misfit(KINDS["dense"], target.FAMILY, other) == reason


def test_a_drafter_belongs_to_no_other_family() -> None:
    config = gemma3.FAMILY.sizes[0].config
    assert FAMILY.misfit(KINDS["dense"], gemma3.FAMILY, config) == "it is not for Gemma 3"
    assert FAMILY.drafts and not target.FAMILY.drafts
