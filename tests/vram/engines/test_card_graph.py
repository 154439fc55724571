"""Graphs of single cards: what is copied to them, and what stays away."""

from __future__ import annotations

import pytest

from gemmaq.models.families import require_size
from gemmaq.vram.engines import branched_graph, dense_graph
from gemmaq.vram.engines.cached_attention import Batch
from gemmaq.vram.engines.card_graph import Share, of_card
from gemmaq.vram.engines.ggml_allocator import buffer_bytes
from memory import MixedConfig
from sparse_models import SHAPES

MOE = SHAPES["gemma-4-26B"].config
DEPTH = len(MOE.layers)
AT_8K = Batch(512, 1, 1, 8192, 1536, ("f16", "f16"), flash=True)
STATES = 4 * 512 * MOE.hidden_size


def of(share: Share, config: MixedConfig = MOE, batch: Batch = AT_8K) -> int:
    return buffer_bytes(of_card(branched_graph.build(config, batch), config.layers, batch, share))


def test_one_card_with_everything_computes_the_whole_graph() -> None:
    """But for the input for images, which lies in main memory where the graph is divided."""
    whole = buffer_bytes(branched_graph.build(MOE, AT_8K))
    assert of(Share(range(DEPTH), True, True)) == whole - STATES


def test_copies_of_experts_take_turns() -> None:
    gate_and_up, down = 200_000_000, 100_000_000
    size = gate_and_up + down
    one, two, many = (of(Share(range(DEPTH), True, True, experts=(size,) * n)) for n in (1, 2, DEPTH))
    assert gate_and_up < one == two <= many < size + 100_000_000


def test_the_first_card_computes_what_lies_in_main_memory() -> None:
    matrices = (300_000_000,) * 10
    far = of(Share(range(10, DEPTH), True, True, matrices))
    near = of(Share(range(10, DEPTH), True, True, (3,) * 10))
    assert far > near
    assert of(Share(range(10, DEPTH), False, True, matrices)) < near


def test_copies_of_caches_grow_with_the_context() -> None:
    longer = Batch(512, 1, 1, 131072, 1536, ("f16", "f16"), flash=True)
    wide = max(layer.kv_width for layer in MOE.layers if not layer.is_local)
    share = Share(range(10, DEPTH), True, True, (3,) * 10)
    caches = 2 * 2 * wide * 131072
    assert of(share, batch=longer) > caches + 2 * 512 * 131072
    quantized = Batch(512, 1, 1, 131072, 1536, ("q8_0", "q8_0"), flash=True)
    assert of(share, batch=quantized) == pytest.approx(of(share, batch=longer) - caches * (1 - 34 / 64), rel=0.05)
    assert of(Share(range(DEPTH), True, True), batch=longer) < caches


def test_experts_elsewhere_leave_their_results_only() -> None:
    """Eight results a token come from the card that computes the experts."""
    own = range(20, DEPTH)
    assert MOE.layers[0].experts is not None
    results = STATES * MOE.layers[0].experts.active
    apart = of(Share(own, False, True, experts=(300_000_000,) * DEPTH))
    assert results < apart < of(Share(own, False, True))


def test_dense_models_without_flash_attention() -> None:
    config = require_size("4b").config
    batch = Batch(512, 1, 1, 8192, 1536, ("f16", "f16"), flash=False)
    count = len(config.layers)
    graph = of_card(
        dense_graph.build(config, batch), config.layers, batch, Share(range(5, count), True, True, (8,) * 5)
    )
    scores = 4 * 512 * 8192 * config.layers[-1].heads
    assert buffer_bytes(graph) > scores
