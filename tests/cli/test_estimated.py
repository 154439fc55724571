"""Models and cards of `gemmaq estimate-vram` as users name them."""

from __future__ import annotations

import pytest

from gemmaq import vram
from gemmaq.cli.estimated import drafter, groups, open_model
from gemmaq.errors import UsageError


def test_cards_with_a_plus_between_share_a_model() -> None:
    found = groups(["4090 + 3060", "2x12GB", "24GB"])
    names = [[card.name for card in group] for group in found]
    assert names == [["RTX 4090", "RTX 3060"], ["2x 12 GB"], ["24 GB"]]
    assert [card.count for card in found[1]] == [2]


def test_a_published_size_is_opened_without_files() -> None:
    checkpoint = open_model("27b")
    assert (checkpoint.name, checkpoint.format) == ("gemma-3-27b", "published")


def test_a_drafter_is_named_for_an_engine_that_runs_some() -> None:
    assert drafter("12B-it-assistant", vram.find("llama.cpp")).family.drafts
    with pytest.raises(UsageError, match="drafter in mlx-lm"):
        drafter("12B-it-assistant", vram.find("mlx"))
