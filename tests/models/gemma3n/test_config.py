"""Dimensions of Gemma 3n."""

from __future__ import annotations

import math

import gemma3n
from gemmaq.models.gemma3n import names
from gemmaq.models.gemma3n.config import pattern


def test_the_last_layers_use_keys_and_values_of_the_last_layer_of_their_kind() -> None:
    layers = gemma3n.CONFIG.layers
    assert [layer.kv_from for layer in layers[19:]] == [None, 18, 18, 18, 18, 19]
    assert [layer.sparse for layer in layers] == [True] * 10 + [False] * 15
    assert pattern(10) == ((True,) * 4 + (False,)) * 2


def test_parameters_are_those_of_the_tensors() -> None:
    config = gemma3n.CONFIG
    assert config.parameters == sum(math.prod(shape) for _, shape in names.shapes(config))
