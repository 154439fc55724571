"""Gemma 4's turns in Ollama: the code for small models, or that for large ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from gemmaq.models.gemma4.chat import CHAT, LICENSE


@dataclass
class _Config:
    layer_embedding: int


@pytest.mark.parametrize(("layer_embedding", "renderer"), [(256, "gemma4-small"), (0, "gemma4-large")])
def test_ollama_is_told_the_size(layer_embedding: int, renderer: str) -> None:
    config: Any = _Config(layer_embedding)
    turns = CHAT.ollama(config)
    assert (turns.template, turns.renderer, turns.parser) == (None, renderer, "gemma4")


def test_the_license_names_its_text() -> None:
    assert LICENSE.name == "apache-2.0" and LICENSE.link in LICENSE.notice
