"""GGUF metadata of drafters: configs come back from their keys, and files without the target's width are refused."""

from __future__ import annotations

from typing import Any

import pytest

from gemma4_drafter import KINDS
from gemmaq.errors import InputError
from gemmaq.models.gemma4.config import TextConfig
from gemmaq.models.gemma4_drafter import gguf_keys, names

FILE = {"tokenizer.ggml.bos_token_id": 2, "tokenizer.ggml.padding_token_id": 0, "tokenizer.ggml.eos_token_id": 1}


def keys_of(config: TextConfig) -> dict[str, Any]:
    return {**FILE, **{f"{gguf_keys.ARCHITECTURE}.{key}": v for key, v in gguf_keys.from_config(config).items()}}


def shapes_of(config: TextConfig) -> dict[str, tuple[int, ...]]:
    return {names.to_gguf(name): shape for name, shape in names.shapes(config)}


@pytest.mark.parametrize("kind", KINDS)
def test_a_config_comes_back(kind: str) -> None:
    assert gguf_keys.to_config(keys_of(KINDS[kind]), shapes_of(KINDS[kind])) == KINDS[kind]


def test_keys_name_the_width_of_the_target_and_count_all_layers() -> None:
    keys = gguf_keys.from_config(KINDS["unified"])
    assert (keys["embedding_length"], keys["embedding_length_out"]) == (512, 256)
    assert keys["nextn_predict_layers"] == keys["attention.shared_kv_layers"] == keys["block_count"] == 4
    assert keys["attention.head_count_kv"] == [2, 2, 2, 1] and keys["embedding_length_per_layer_input"] == 0


@pytest.mark.parametrize("left_out", ["attention.shared_kv_layers", "embedding_length_per_layer_input"])
def test_keys_that_all_drafters_have_alike_may_be_missing(left_out: str) -> None:
    keys = keys_of(KINDS["effective"])
    del keys[f"{gguf_keys.ARCHITECTURE}.{left_out}"]
    assert gguf_keys.to_config(keys, shapes_of(KINDS["effective"])) == KINDS["effective"]


@pytest.mark.parametrize("change", [{"embedding_length_out": None}, {"embedding_length_out": -1}, {"block_count": 0}])
def test_keys_that_make_no_sense_are_refused(change: dict[str, Any]) -> None:
    keys = keys_of(KINDS["dense"]) | {f"{gguf_keys.ARCHITECTURE}.{key}": value for key, value in change.items()}
    with pytest.raises(InputError, match=gguf_keys.ARCHITECTURE):
        gguf_keys.to_config(keys, shapes_of(KINDS["dense"]))
