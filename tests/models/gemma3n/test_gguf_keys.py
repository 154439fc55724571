"""GGUF metadata of Gemma 3n: configs come back, and what llama.cpp does not run is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import gemma3n
from gemmaq.errors import InputError
from gemmaq.models.gemma3n import gguf_keys, names

IDS = {"tokenizer.ggml.bos_token_id": 2, "tokenizer.ggml.padding_token_id": 0, "tokenizer.ggml.eos_token_id": 1}
SHAPES = {names.to_gguf(name): shape for name, shape in names.shapes(gemma3n.CONFIG)}


def keys() -> dict[str, Any]:
    return IDS | {f"gemma3n.{key}": value for key, value in gguf_keys.from_config(gemma3n.CONFIG).items()}


def test_a_config_comes_back() -> None:
    assert gguf_keys.to_config(keys(), SHAPES) == gemma3n.CONFIG


def test_rows_beyond_those_of_the_published_models_are_no_layer_embeddings() -> None:
    padded = SHAPES | {"per_layer_token_embd.weight": (262400, 6400), "token_embd.weight": (262400, 256)}
    config = gguf_keys.to_config(keys(), padded)
    assert (config.vocab_size, config.vocab_size_per_layer_input) == (262400, 262144)


@pytest.mark.parametrize(
    "change", [{"altup_num_inputs": 2}, {"num_kv_shared_layers": 4}, {"altup_correct_scale": False}]
)
def test_what_llama_cpp_does_not_run_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"llama\.cpp runs Gemma 3n with"):
        gguf_keys.from_config(replace(gemma3n.CONFIG, **change))


@pytest.mark.parametrize(
    "change",
    [
        {"block_count": 0},
        {"embedding_length": None},
        {"attention.shared_kv_layers": 25},
        {"attention.shared_kv_layers": 22},
        {"feed_forward_length": [0] * 25},
        {"activation_sparsity_scale": (1.0,)},
        {"rope.freq_base": -1.0},
    ],
)
def test_keys_that_make_no_sense_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        gguf_keys.to_config(keys() | {f"gemma3n.{key}": value for key, value in change.items()}, SHAPES)
