"""GGUF metadata: configs come back from their keys, and keys that make no sense are refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gemmaq.errors import InputError
from gemmaq.models.gemma3 import gguf_keys
from gemmaq.models.gemma3.config import TextConfig, pattern
from gemmaq.models.gemma3.sizes import SIZES
from synthetic import TINY

FILE = {"tokenizer.ggml.bos_token_id": 2, "tokenizer.ggml.padding_token_id": 0, "tokenizer.ggml.eos_token_id": 1}


def keys_of(config: TextConfig) -> dict[str, Any]:
    return {**FILE, **{f"{gguf_keys.ARCHITECTURE}.{key}": v for key, v in gguf_keys.from_config(config).items()}}


CONFIGS = {size.label: size.config for size in SIZES} | {
    "tiny": TINY,
    "another period": replace(TINY, layer_pattern=pattern(7, 3)),
    "no period": replace(TINY, layer_pattern=(True, False, False, True, True, True, False)),
    "scaled": replace(TINY, rope_factor=8.0),
    "capped": replace(TINY, final_logit_softcapping=30.0),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_comes_back(name: str) -> None:
    config = CONFIGS[name]
    found = gguf_keys.to_config(keys_of(config), {"token_embd.weight": (config.vocab_size, config.hidden_size)})
    assert replace(found, eos_token_ids=config.eos_token_ids) == config


def test_a_scale_that_llama_cpp_would_not_use_is_refused() -> None:
    with pytest.raises(InputError, match="query_pre_attn_scalar is 33"):
        gguf_keys.from_config(replace(TINY, query_pre_attn_scalar=33))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("block_count", None, "is missing"),
        ("block_count", 0, "is 0"),
        ("block_count", 5000, "block_count"),
        ("embedding_length", 64.0, "is 64.0"),
        ("embedding_length", True, "is True"),
        ("rope.freq_base", -1.0, "is -1.0"),
        ("attention.sliding_window_pattern", [True], "does not fit 7 layers"),
        ("attention.sliding_window_pattern", "x", "does not fit"),
    ],
)
def test_keys_that_make_no_sense_are_refused(key: str, value: object, message: str) -> None:
    keys = {k: v for k, v in (keys_of(TINY) | {f"{gguf_keys.ARCHITECTURE}.{key}": value}).items() if v is not None}
    with pytest.raises(InputError, match=message):
        gguf_keys.to_config(keys, {"token_embd.weight": (TINY.vocab_size, TINY.hidden_size)})
