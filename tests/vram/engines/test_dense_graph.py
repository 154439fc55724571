"""Graph of llama.cpp for layers that differ: caches are summed layer by layer, buffers follow the widest."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gemmaq import vram
from gemmaq.models.config import Layer
from gemmaq.vram import Estimate, Load, Model
from gemmaq.vram.engines.cached_attention import Batch
from gemmaq.vram.engines.dense_graph import build
from gemmaq.vram.engines.ggml_allocator import buffer_bytes
from memory import K, MixedConfig

LOCAL = Layer(heads=8, kv_heads=4, head_dim=256, ffn=4096, window=1024)
GLOBAL = Layer(heads=8, kv_heads=1, head_dim=512, ffn=4096, window=None)


def config(local: Layer, everywhere: Layer) -> MixedConfig:
    return MixedConfig((local, local, everywhere, local), 2048, vocab_size=1000)


def memory(engine: str, model: MixedConfig, **options: object) -> Estimate:
    runtime = vram.find(engine)
    load = replace(Load(8 * K, (runtime.kv_default,) * 2), **options)  # type: ignore[arg-type]
    return vram.estimate(runtime, Model("mixed", model, 0, 0), load)


@pytest.mark.parametrize("engine", ["llama.cpp", "libllama", "ollama", "lmstudio", "mlx", "transformers"])
def test_caches_are_those_of_the_layers(engine: str) -> None:
    """Each kind of layer takes what it takes in a model where all layers have its heads."""
    mixed = memory(engine, config(LOCAL, GLOBAL))
    assert mixed.kv_local == memory(engine, config(LOCAL, replace(LOCAL, window=None))).kv_local
    assert mixed.kv_global == memory(engine, config(replace(GLOBAL, window=1024), GLOBAL)).kv_global


def test_without_flash_attention_v_is_as_wide_as_in_the_widest_layer() -> None:
    """llama.cpp stores V transposed then and pads every layer."""
    flash, scores = (memory("llama.cpp", config(LOCAL, GLOBAL), flash_attention=flag) for flag in (True, False))
    assert flash.kv_local == scores.kv_local
    assert flash.kv_global == 8 * K * 2 * (512 + 512)
    assert scores.kv_global == 8 * K * 2 * (512 + 1024)


@pytest.mark.parametrize(
    ("engine", "change"),
    [
        *((engine, {"ffn": 32768}) for engine in vram.NAMES),
        *((engine, {"heads": 64}) for engine in vram.NAMES if engine != "vllm"),  # it counts the feed-forward part only
    ],
)
def test_one_wide_layer_takes_more(engine: str, change: dict[str, int]) -> None:
    small, large = memory(engine, config(LOCAL, GLOBAL)), memory(engine, config(LOCAL, replace(GLOBAL, **change)))
    assert small.compute < large.compute and small.kv == large.kv


@pytest.mark.parametrize("flash", [True, False])
def test_layers_of_one_kind_alone(flash: bool) -> None:
    batch = Batch(512, 1, 1, 8192, 1536, ("f16", "f16"), flash)
    both = buffer_bytes(build(config(LOCAL, replace(LOCAL, window=None)), batch))
    for layer in (LOCAL, replace(LOCAL, window=None)):
        assert 0 < buffer_bytes(build(config(layer, layer), batch)) <= both


def test_heads_of_several_sizes_in_one_cache_are_not_rotated() -> None:
    """With heads of one size, K and Q are multiplied with a matrix before K is quantized; of several they are not."""
    batch = Batch(512, 1, 1, 8192, 1536, ("q8_0", "q8_0"), flash=True)
    one = build(MixedConfig((GLOBAL, GLOBAL), 2048), batch)
    several = build(MixedConfig((GLOBAL, replace(GLOBAL, head_dim=256, kv_heads=2)), 2048), batch)
    plain = build(MixedConfig((GLOBAL, GLOBAL), 2048), replace(batch, kv_types=("f16", "f16")))
    assert len(several.nodes) == len(plain.nodes) < len(one.nodes)
