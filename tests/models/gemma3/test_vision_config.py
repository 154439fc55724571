"""Dimensions of a vision tower."""

from __future__ import annotations

from dataclasses import replace

from gemmaq.models.gemma3.vision_config import VisionConfig


def test_patches_cover_the_image() -> None:
    config = VisionConfig()
    assert config.patches == (896 // 14) ** 2
    assert replace(config, image_size=28).patches == 4
