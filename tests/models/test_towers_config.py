"""Dimensions of towers as engines read them."""

from __future__ import annotations

from gemmaq.models.gemma3.towers import DEFAULT
from gemmaq.models.gemma4.towers_config import AudioTower, TowersConfig, VisionTower, Waves
from gemmaq.models.towers_config import senses


def test_the_tower_of_gemma_3_sees_and_hears_nothing() -> None:
    assert DEFAULT.hears is None
    assert (DEFAULT.sees.patches, DEFAULT.sees.tokens, DEFAULT.sees.num_hidden_layers) == (4096, 256, 27)


def test_what_towers_are_for() -> None:
    both = TowersConfig(vision=VisionTower(), audio=AudioTower())
    assert [senses(each) for each in (DEFAULT, TowersConfig(audio=Waves()), both)] == [
        "images", "sound", "images and sound",
    ]  # fmt: skip
