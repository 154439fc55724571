"""Graph of decoders with branches: compute buffers as llama.cpp's log prints them, and what they depend on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gemmaq.vram.engines.branched_graph import build
from gemmaq.vram.engines.cached_attention import Batch
from gemmaq.vram.engines.ggml_allocator import buffer_bytes
from memory import MIB, MixedConfig
from sparse_models import SHAPES

AT_8K = Batch(512, 1, 1, 8192, 1024, ("f16", "f16"), flash=True)
LOGGED = {
    "gemma-4-E2B": (1024, 118.52, 142.52, 214.51),
    "gemma-4-E4B": (1024, 121.02, 145.02, 211.51),
    "gemma-4-12B": (1536, 138.02, 162.02, 345.51),
    "gemma-4-26B": (1536, 105.52, 129.52, 351.64),
    "gemma-4-31B": (1536, 183.02, 207.02, 658.51),
}
"""Cells of the sliding-window cache, and MiB at 8192 and at 32,768 tokens, and at 8192 without flash attention."""


def mib(config: MixedConfig, batch: Batch) -> float:
    return buffer_bytes(build(config, batch)) / MIB


@pytest.mark.parametrize("name", LOGGED)
def test_buffers_are_those_of_llama_cpp(name: str) -> None:
    cells, *logged = LOGGED[name]
    config, batch = SHAPES[name].config, replace(AT_8K, local_cells=cells)
    ours = [mib(config, other) for other in (batch, replace(batch, cells=32768), replace(batch, flash=False))]
    assert ours == pytest.approx(logged, abs=0.00501)


def test_the_number_of_experts_costs_little_and_that_of_active_ones_much() -> None:
    config = SHAPES["gemma-4-26B"].config
    assert config.layers[0].experts is not None

    def of(**changes: int) -> float:
        layers = (replace(layer, experts=replace(layer.experts, **changes)) for layer in config.layers)  # type: ignore[type-var]
        return mib(replace(config, layers=tuple(layers)), AT_8K)

    assert of(count=256) == pytest.approx(of(), abs=0.5)
    assert of(active=16) > of() + 50


def test_layers_that_read_another_cache_write_none() -> None:
    config = SHAPES["gemma-4-E2B"].config
    stores = [node for node in build(config, AT_8K).nodes if node.operation == "set_rows"]
    assert len(stores) == 2 * 15


def test_logits_are_bounded_where_the_model_bounds_them() -> None:
    config = SHAPES["gemma-4-12B"].config
    plain = build(replace(config, final_logit_softcapping=None), AT_8K)
    assert [node.operation for node in build(config, AT_8K).nodes[len(plain.nodes) :]] == ["scale", "tanh", "scale"]
