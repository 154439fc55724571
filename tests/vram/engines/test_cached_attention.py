"""Parts that the graphs share: the caches' inputs, and attention with keys and values or without."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gemmaq.models.config import Layer
from gemmaq.vram.engines import cached_attention as parts
from gemmaq.vram.engines.cached_attention import Batch, Heads
from gemmaq.vram.engines.ggml_allocator import Graph, result

LOCAL = Layer(heads=8, kv_heads=4, head_dim=256, ffn=4096, window=512)
GLOBAL = Layer(heads=8, kv_heads=1, head_dim=512, ffn=4096, window=None)
BATCH = Batch(256, 1, 1, 8192, 768, ("f16", "f16"), flash=True)


def test_each_kind_of_layers_has_its_own_mask() -> None:
    inputs = parts.inputs((LOCAL, GLOBAL), BATCH)
    assert {local: given.mask.size for local, given in inputs.items()} == {True: 2 * 768 * 256, False: 2 * 8192 * 256}
    assert parts.inputs((LOCAL,), replace(BATCH, flash=False))[True].mask.size == 4 * 768 * 256


def test_places_of_v_are_as_many_as_the_widest_layer_has_numbers_where_v_is_transposed() -> None:
    for flash, wide in ((True, 1), (False, 1024)):
        inputs = parts.inputs((LOCAL, GLOBAL), replace(BATCH, flash=flash))
        assert {given.v_places.size for given in inputs.values()} == {8 * 256 * wide}


def test_only_a_quantized_cache_is_rotated() -> None:
    quantized = parts.inputs((LOCAL, GLOBAL), replace(BATCH, kv_types=("q8_0", "f16")))
    sides = {local: given.k_rotation and given.k_rotation.shape for local, given in quantized.items()}
    assert sides == {True: (256, 256), False: (512, 512)}
    assert all(given.v_rotation is None for given in quantized.values())


@pytest.mark.parametrize("kv_types", [("f16", "f16"), ("q8_0", "q8_0")])
def test_a_layer_without_keys_of_its_own_only_reads(kv_types: tuple[str, str]) -> None:
    """With a quantized cache its queries are rotated all the same."""
    batch = replace(BATCH, kv_types=kv_types)
    given = parts.inputs((LOCAL,), batch)[True]
    queries, keys, values = (result("rope", (256, heads, 256)) for heads in (8, 4, 4))
    counts = []
    for heads in (Heads(queries), Heads(queries, keys, values)):
        graph = Graph()
        out = parts.attend(graph, batch, given, layer=LOCAL, heads=heads)
        assert out.shape == (2048, 256)
        counts.append([node.operation for node in graph.nodes].count("set_rows"))
    assert counts == [0, 2]


def test_a_norm_writes_over_nothing_but_its_own() -> None:
    state = result("matrix", (64, 8))
    normed = parts.norm(state)
    assert [normed.operation, normed.sources[0].operation] == ["mul", "rms_norm"]
    assert parts.matrix(normed, 32).shape == (32, 8)
