"""Dimensions of Gemma 4's layers, and parameter counts."""

from __future__ import annotations

import math

import pytest

import gemma4
from gemmaq.models.config import Experts
from gemmaq.models.gemma4.names import shapes
from gemmaq.models.gemma4.sizes import SIZES


@pytest.mark.parametrize("kind", gemma4.KINDS)
def test_parameters_are_those_of_the_tensors(kind: str) -> None:
    config = gemma4.KINDS[kind]
    assert config.parameters == sum(math.prod(shape) for _, shape in shapes(config))
    assert sum(config.layer_parameters) < config.parameters


def test_the_last_layers_use_keys_and_values_of_the_last_layer_of_their_kind() -> None:
    layers = SIZES[0].config.layers
    assert [layer.kv_from for layer in layers[:15]] == [None] * 15
    assert {layer.kv_from for layer in layers[15:] if layer.is_local} == {13}
    assert {layer.kv_from for layer in layers[15:] if not layer.is_local} == {14}
    assert {layer.ffn for layer in layers[:15]} == {6144} and {layer.ffn for layer in layers[15:]} == {12288}


def test_global_layers_have_heads_of_their_own() -> None:
    local, everywhere = gemma4.EXPERTS.layers[0], gemma4.EXPERTS.layers[5]
    assert (local.kv_heads, local.head_dim, local.k_is_v, local.window) == (4, 64, False, 16)
    assert (everywhere.kv_heads, everywhere.head_dim, everywhere.k_is_v, everywhere.window) == (2, 128, True, None)
    assert local.experts == Experts(16, 4, 96)
