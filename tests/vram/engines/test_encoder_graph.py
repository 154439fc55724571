"""Graph of models that turn texts into vectors: compute buffers as llama.cpp's log prints them."""

from __future__ import annotations

import pytest

from gemmaq import vram
from gemmaq.errors import UsageError
from gemmaq.models.gemma3.config import TextConfig, pattern
from gemmaq.vram import Load, Model
from gemmaq.vram.engines.cached_attention import Batch
from gemmaq.vram.engines.encoder_graph import build
from gemmaq.vram.engines.ggml_allocator import buffer_bytes
from memory import MIB

EMBEDDING = TextConfig(
    hidden_size=768,
    intermediate_size=1152,
    num_hidden_layers=24,
    num_attention_heads=3,
    num_key_value_heads=1,
    vocab_size=262144,
    max_position_embeddings=2048,
    sliding_window=512,
    layer_pattern=pattern(24, 6),
)
"""EmbeddingGemma 300M."""
MODEL = Model("an encoder", EMBEDDING, 1_000_000, 400_000, encoder=True)
LOGGED = {
    (512, 1, True): 12.26,
    (2048, 1, True): 61.03,
    (2048, 4, True): 61.05,
    (512, 1, False): 13.26,
    (2048, 1, False): 110.03,
}
"""Tokens, texts and flash attention -> MiB of llama.cpp's log."""


@pytest.mark.parametrize("case", LOGGED, ids=str)
def test_buffers_are_those_of_llama_cpp(case: tuple[int, int, bool]) -> None:
    tokens, texts, flash = case
    batch = Batch(tokens, texts, 1, tokens, tokens, ("f16", "f16"), flash)
    assert buffer_bytes(build(EMBEDDING, batch)) / MIB == pytest.approx(LOGGED[case], abs=0.00501)


@pytest.mark.parametrize("name", ["llama.cpp", "libllama", "ollama", "lmstudio"])
def test_an_encoder_has_no_cache_and_takes_what_its_largest_batch_takes(name: str) -> None:
    short, long = (vram.estimate(vram.find(name), MODEL, Load(context)) for context in (300, 2048))
    assert short.kv == 0 and short.total == long.total
    assert short.compute / MIB == pytest.approx(12.26, abs=0.00501)
    assert short.host == 400_000 + 4 * (262144 + 768) + 4 * 512 * (2 * 768 + 512)


def test_engines_whose_memory_for_it_is_not_known_say_so() -> None:
    for name in ("mlx", "transformers", "vllm"):
        engine = vram.find(name)
        with pytest.raises(UsageError, match="turns texts into vectors"):
            vram.estimate(engine, MODEL, Load(512, (engine.kv_default,) * 2))


def test_the_note_says_how_long_a_text_may_be() -> None:
    (note,) = vram.estimate(vram.find("llama.cpp"), MODEL, Load(2048)).notes
    assert "512 tokens" in note and "--ubatch 2048" in note
