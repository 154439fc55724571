"""Gemma 3's layers in transformers."""

from __future__ import annotations

import pytest

from gemmaq.models.gemma3 import modules
from synthetic import TINY

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")


def test_layers_and_kinds_of_attention_are_those_of_the_config() -> None:
    config = modules.hf_config(TINY)
    kinds = modules.attention_kinds(config)
    assert len(kinds) == TINY.num_hidden_layers
    assert [kind == "sliding_attention" for kind in kinds] == [layer.is_local for layer in TINY.layers]
    assert modules.embedding_scale(TINY) == TINY.hidden_size**0.5
