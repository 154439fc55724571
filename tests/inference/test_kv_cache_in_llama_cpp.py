"""Keys and values go through the same cache as in llama.cpp, in every type."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gemma4
import gemma4_tokenizer
from conversions import conversions
from gemmaq.encodings import ENCODINGS
from gemmaq.inference import kv_cache
from gemmaq.inference.decoder import decoder
from gemmaq.inference.device import open_device
from gemmaq.inference.kv_cache import KVCache
from gemmaq.models.gemma3.config import pattern as pattern_3
from gemmaq.models.gemma4.config import pattern as pattern_4
from gemmaq.sources.open import open_source
from gemmaq.vram import kv_types
from gemmaq.vram.engines.llama_cpp import KV_TYPES
from oracles import load_llama, need, need_ggml
from small import SMALL, tokenizer
from synthetic import write_checkpoint

pytestmark = [pytest.mark.oracle, pytest.mark.slow]

GEMMA_3 = replace(
    SMALL,
    hidden_size=256,
    head_dim=128,
    num_attention_heads=4,
    num_key_value_heads=2,
    query_pre_attn_scalar=128,
    sliding_window=16,
    layer_pattern=pattern_3(2, 2),
)
KEYS_ARE_VALUES = replace(gemma4.DENSE, num_hidden_layers=2, layer_pattern=pattern_4(2, 2))
SHARED = replace(gemma4.EFFECTIVE, num_hidden_layers=4, num_kv_shared_layers=2, layer_pattern=pattern_4(4, 2))
"""Layers are few: where two engines differ by 1e-7, a few codes differ, then more of them in every layer."""
IDS = [2, *np.random.default_rng(3).integers(280, 360, 95).tolist()]
QUERIES = {"q4_1": "q8_0", "q5_1": "q8_0", "f16": "f16", "bf16": "bf16", "f32": "f32"}
"""Type of K -> that of queries on CPUs, Q8_0 for others; Q8_1 has the codes of Q8_0."""
Convert = Callable[..., Path]


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory, require: Callable[[bool, str], None]) -> Convert:
    need(require, "torch", "transformers")
    need_ggml(require)
    root = tmp_path_factory.mktemp("models")
    folder = write_checkpoint(root / "gemma-3-small", GEMMA_3, seed=5)
    for name, content in tokenizer(GEMMA_3.vocab_size).items():
        (folder / name).write_bytes(content)
    sources = {"gemma3": folder}
    for kind, config in (("gemma4, keys are values", KEYS_ARE_VALUES), ("gemma4, shared", SHARED)):
        written = gemma4.write(root / f"gemma-4-{kind[-6:]}", config)
        sources[kind] = gemma4_tokenizer.write(written)
    return conversions(sources, root, "--quant", "f32")


def ours(path: Path, cache: KVCache | None) -> np.ndarray:
    """Logits of gemmaq, f32 [tokens, vocabulary]."""
    import torch

    checkpoint = open_source(str(path))
    with open_device("cpu", 1) as device, decoder(checkpoint, device, cache) as model:
        batches = model.embed(np.array([IDS]))
        for index in range(model.layers):
            model.through(model.layer(index), index, batches)
        logits = model.normed(batches[0].hidden[0]) @ model.read_to_device(checkpoint.embedding).T
        cap = checkpoint.config.final_logit_softcapping
        return (logits if cap is None else cap * torch.tanh(logits / cap)).numpy()


def theirs(path: Path, numbers: tuple[int, int] | None) -> np.ndarray:
    """The same of llama.cpp, with a cache in types by ggml's numbers, or in F32."""
    with load_llama(path) as llama:
        return np.concatenate([part.copy() for part in llama.logits(IDS, exact=numbers is None, kv=numbers)])


def rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


def of(text: str) -> KVCache:
    return KVCache(*(ENCODINGS[kind] for kind in kv_types(text)))


@pytest.mark.parametrize("model", ["gemma3", "gemma4, keys are values", "gemma4, shared"])
def test_logits_are_those_of_llama_cpp(converted: Convert, monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    """Queries are rounded here as llama.cpp does on CPUs; what is left is less than a tenth of the effect.

    Beside it is room for the tables of FP16 numbers that llama.cpp takes GELU from, and for codes that differ for them.
    """
    plain_attend = kv_cache._attend

    def attend(module: Any, query: Any, *others: Any, kv_cache: KVCache, **options: Any) -> Any:
        rounding = ENCODINGS[QUERIES.get(kv_cache.k.name, "q8_0")]
        query, _ = KVCache(rounding, rounding).stored(query, query)
        return plain_attend(module, query, *others, kv_cache=kv_cache, **options)

    monkeypatch.setattr(kv_cache, "_attend", attend)
    path = next(converted(model).glob("*.gguf"))
    plain, exact = ours(path, None), theirs(path, None)
    assert rms(plain - exact) < 1e-3 * rms(exact)  # GELU is a table of FP16 numbers there
    for text in [kind for kind in KV_TYPES if kind != "f32"] + ["q8_0,q4_0", "f16,q4_0"]:
        cache = of(text)
        numbers = cache.k.ggml_type, cache.v.ggml_type
        found, wanted = ours(path, cache), theirs(path, numbers)  # type: ignore[arg-type]
        effect, apart = rms(wanted - exact), rms(found - wanted)
        print(f"{model} {text}: effect {effect / rms(exact):.2e}, apart {apart / effect:.3f} of it")
        assert apart < 0.1 * effect + 4e-3 * rms(exact), text
