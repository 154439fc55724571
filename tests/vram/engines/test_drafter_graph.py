"""Graph of drafters: compute buffers as llama.cpp's log prints them, and what they depend on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gemmaq.models.gemma4_drafter.sizes import SIZES
from gemmaq.vram.engines.cached_attention import Batch
from gemmaq.vram.engines.drafter_graph import build
from gemmaq.vram.engines.ggml_allocator import buffer_bytes
from memory import MIB

DRAFTERS = {size.label.partition("-")[0]: size.config for size in SIZES}
AT_8K = Batch(512, 1, 1, 8192, 1024, ("f16", "f16"), flash=True)
LOGGED = {"E2B": (1536, 1024, 24.0, 48.0, 93.0), "12B": (3840, 1536, 65.0, 89.0, 314.5)}
"""Width of the target, cells of its sliding-window cache, and MiB at 8192 and at 32,768 tokens, and at 8192 without
flash attention."""


def mib(name: str, batch: Batch) -> float:
    return buffer_bytes(build(DRAFTERS[name], batch, LOGGED[name][0])) / MIB


@pytest.mark.parametrize("name", LOGGED)
def test_buffers_are_those_of_llama_cpp(name: str) -> None:
    _, cells, *logged = LOGGED[name]
    batch = replace(AT_8K, local_cells=cells)
    ours = [mib(name, other) for other in (batch, replace(batch, cells=32768), replace(batch, flash=False))]
    assert ours == pytest.approx(logged, abs=0.00501)


@pytest.mark.parametrize(("tokens", "logged"), [(512, 33.11), (64, 33.16)])
def test_many_sequences_take_logits_twice(tokens: int, logged: float) -> None:
    """Sixteen slots of llama-server with 512 tokens of context each."""
    batch = Batch(tokens, 16, 16, 512, 512, ("f16", "f16"), flash=True)
    assert mib("E2B", batch) == pytest.approx(logged, abs=0.00501)


def test_a_drafter_writes_to_no_cache() -> None:
    graph = build(DRAFTERS["E2B"], AT_8K, 1536)
    assert not [node for node in graph.nodes if node.operation == "set_rows"]
    assert len([node for node in graph.nodes if node.operation == "flash"]) == 4
