"""Graph of decoders with several residual streams: compute buffers as llama.cpp's log prints them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gemmaq.vram.engines.cached_attention import Batch
from gemmaq.vram.engines.ggml_allocator import buffer_bytes
from gemmaq.vram.engines.stream_graph import build
from memory import MIB, MixedConfig
from sparse_models import SHAPES

AT_8K = Batch(512, 1, 1, 8192, 1024, ("f16", "f16"), flash=True)
LOGGED = {"gemma-3n-E2B": (111.02, 135.02, 219.01), "gemma-3n-E4B": (160.02, 184.02, 199.51)}
"""MiB at 8192 and at 32,768 tokens, and at 8192 without flash attention."""


def mib(config: MixedConfig, batch: Batch = AT_8K) -> float:
    return buffer_bytes(build(config, batch)) / MIB


@pytest.mark.parametrize("name", LOGGED)
def test_buffers_are_those_of_llama_cpp(name: str) -> None:
    config = SHAPES[name].config
    ours = [mib(config, other) for other in (AT_8K, replace(AT_8K, cells=32768), replace(AT_8K, flash=False))]
    assert ours == pytest.approx(LOGGED[name], abs=0.00501)


def test_more_streams_take_more() -> None:
    config = SHAPES["gemma-3n-E4B"].config
    assert mib(replace(config, streams=2)) < mib(config) < mib(replace(config, streams=8))


def test_sparse_gates_are_operations_of_their_own() -> None:
    config = SHAPES["gemma-3n-E2B"].config
    dense = replace(config, layers=tuple(replace(layer, sparse=False) for layer in config.layers))
    kept = [sum(node.operation == "relu" for node in build(c, AT_8K).nodes) for c in (config, dense)]
    assert kept == [10, 0]
