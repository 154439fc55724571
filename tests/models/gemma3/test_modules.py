"""Layers in transformers: the mask of full sequences is causal, and no warning disturbs a progress bar."""

from __future__ import annotations

import warnings

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


def test_masks_are_made_without_a_warning() -> None:
    config = modules.hf_config(TINY)
    hidden, positions = torch.zeros(1, 80, TINY.hidden_size), torch.arange(80).unsqueeze(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        masks = {kind: modules.attention_mask(config, kind, hidden, positions) for kind in set(config.layer_types)}
    local = masks["sliding_attention"]
    assert local is not None and not bool(local[0, 0, 79, 79 - TINY.sliding_window])
    assert bool(local[0, 0, 79, 78]) and not bool(local[0, 0, 0, 1])
