"""GGUF keys of EmbeddingGemma."""

from __future__ import annotations

import pytest

from gemmaq.errors import InputError
from gemmaq.models.embeddinggemma.gguf_keys import ARCHITECTURE, from_config, to_config
from gemmaq.models.embeddinggemma.sizes import SIZES


def test_a_config_comes_back_under_its_own_architecture() -> None:
    config = SIZES[0].config
    keys = {f"{ARCHITECTURE}.{key}": value for key, value in from_config(config).items()}
    ids = {"tokenizer.ggml.bos_token_id": 2, "tokenizer.ggml.eos_token_id": 1, "tokenizer.ggml.padding_token_id": 0}
    shapes = {"token_embd.weight": (config.vocab_size, config.hidden_size)}
    assert to_config(keys | ids, shapes) == config
    with pytest.raises(InputError, match=r"gemma-embedding\.block_count is missing"):
        to_config({}, shapes)
