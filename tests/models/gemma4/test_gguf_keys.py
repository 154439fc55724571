"""GGUF metadata of Gemma 4: configs come back from their keys, and keys that make no sense are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gemma4
from gemmaq.errors import InputError
from gemmaq.models.gemma4 import gguf_keys, names
from gemmaq.models.gemma4.config import TextConfig

FILE = {"tokenizer.ggml.bos_token_id": 2, "tokenizer.ggml.padding_token_id": 0, "tokenizer.ggml.eos_token_id": 1}


def keys_of(config: TextConfig) -> dict[str, Any]:
    return {**FILE, **{f"{gguf_keys.ARCHITECTURE}.{key}": v for key, v in gguf_keys.from_config(config).items()}}


def shapes_of(config: TextConfig) -> dict[str, tuple[int, ...]]:
    return {names.to_gguf(name): shape for name, shape in names.shapes(config)}


@pytest.mark.parametrize("kind", gemma4.KINDS)
def test_a_config_comes_back(kind: str) -> None:
    config = gemma4.KINDS[kind]
    assert gguf_keys.to_config(keys_of(config), shapes_of(config)) == config


def test_keys_are_arrays_only_where_layers_differ() -> None:
    effective, dense = gguf_keys.from_config(gemma4.EFFECTIVE), gguf_keys.from_config(gemma4.DENSE)
    assert effective["feed_forward_length"] == [512] * 5 + [1024] * 5 and dense["feed_forward_length"] == 512
    assert effective["attention.head_count_kv"] == 1 and dense["attention.head_count_kv"] == [4] * 5 + [2]
    assert "expert_count" not in dense and gguf_keys.from_config(gemma4.EXPERTS)["expert_count"] == 16


def test_a_quarter_of_the_frequencies_rotates() -> None:
    (freqs,) = gguf_keys.generated(gemma4.DENSE).values()
    assert freqs.dtype == np.float32 and freqs.tolist() == [1.0] * 16 + [np.float32(1e30)] * 48


@pytest.mark.parametrize(
    "change",
    [
        {"block_count": 0},
        {"block_count": "6"},
        {"embedding_length": None},
        {"attention.sliding_window": 0},
        {"attention.head_count_kv": [4] * 5},
        {"attention.head_count_kv": [1, 2, 3, 4, 5, 6]},
        {"attention.shared_kv_layers": 6},
        {"feed_forward_length": [512, 512, 1024, 512, 512, 512]},
        {"rope.freq_base": -1.0},
    ],
)
def test_keys_that_make_no_sense_are_refused(change: dict[str, Any]) -> None:
    keys = keys_of(gemma4.DENSE) | {f"gemma4.{key}": value for key, value in change.items()}
    with pytest.raises(InputError):
        gguf_keys.to_config(keys, shapes_of(gemma4.DENSE))
