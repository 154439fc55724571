"""Dimensions by layer."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gemmaq.models.config import Layer, global_layers
from gemmaq.models.families import sizes
from gemmaq.models.size import Size


def test_widths_of_a_layer() -> None:
    layer = Layer(heads=8, kv_heads=2, head_dim=64, ffn=300, window=None)
    assert (layer.query_width, layer.kv_width, layer.is_local) == (512, 128, False)
    assert replace(layer, window=512).is_local


@pytest.mark.parametrize("size", sizes(), ids=lambda size: size.name)
def test_every_layer_of_a_published_size_is_described(size: Size) -> None:
    config = size.config
    assert len(config.layers) == len(config.layer_parameters) == config.num_hidden_layers
    assert global_layers(config) == sum(layer.window is None for layer in config.layers) > 0
    assert sum(config.layer_parameters) < config.parameters
