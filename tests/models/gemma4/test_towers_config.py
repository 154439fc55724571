"""What other rooms read of the towers."""

from __future__ import annotations

from gemmaq.models.gemma4.sizes import SIZES
from gemmaq.models.gemma4.towers_config import TowersConfig, VisionTower, Waves
from gemmaq.models.towers_config import Encoder

CONFIGS = {size.label: size.towers_config for size in SIZES}


def test_small_models_see_and_hear_through_transformers() -> None:
    for label in ("E2B", "E4B"):
        config = CONFIGS[label]
        assert config is not None
        assert config.sees == Encoder(768, 3072, 16, 12, 2520, 280, inputs=768, most_tokens=1120)
        assert config.hears == Encoder(1024, 4096, 12, 8, 750, 750, inputs=128, channels=(128, 32))


def test_large_models_see() -> None:
    for label in ("26B-A4B", "31B"):
        config = CONFIGS[label]
        assert config is not None
        assert config.sees == Encoder(1152, 4304, 27, 16, 2520, 280, inputs=768, most_tokens=1120)
        assert config.hears is None


def test_the_model_without_towers_has_no_layers_before_the_text_model() -> None:
    config = CONFIGS["12B"]
    assert isinstance(config, TowersConfig) and config.unified
    assert config.sees == Encoder(3840, 0, 0, 0, 280, 280, inputs=6912, most_tokens=1120)
    assert config.hears == Encoder(640, 0, 0, 0, 750, 750, inputs=640)
    assert not TowersConfig(VisionTower()).unified
    assert TowersConfig(audio=Waves()).sees is None
