"""config.json of Gemma 4 in both spellings, and values that make no sense."""

from __future__ import annotations

from typing import Any

import pytest

import gemma4
from gemmaq.errors import InputError
from gemmaq.models.gemma4.hf_config import from_hf, nested, to_hf


def modern(kind: str) -> dict[str, Any]:
    """A config as transformers 5.15 and later write it."""
    config = gemma4.KINDS[kind]
    document = to_hf(config, "bfloat16")
    entry = {"head_dim": document.pop("global_head_dim")}
    heads = document.pop("num_global_key_value_heads")
    if heads is not None:
        entry["num_key_value_heads"] = heads
    layers = [str(at) for at, local in enumerate(config.layer_pattern) if not local]
    return document | {"per_layer_config": dict.fromkeys(layers, entry)}


@pytest.mark.parametrize("kind", gemma4.KINDS)
def test_both_spellings_are_read(kind: str) -> None:
    config = gemma4.KINDS[kind]
    flat = to_hf(config, "bfloat16")
    assert from_hf(flat) == from_hf(modern(kind)) == from_hf(nested(flat)) == config


def test_transformers_reads_what_is_written() -> None:
    transformers = pytest.importorskip("transformers")
    for config in gemma4.KINDS.values():
        read = transformers.Gemma4TextConfig(**to_hf(config, "bfloat16"))
        heads = [read.get_layer_config(at) if hasattr(read, "get_layer_config") else None for at in (0, 5)]
        assert read.num_kv_shared_layers == config.num_kv_shared_layers and len(heads) == 2
        assert from_hf(read.to_dict()) == config


def test_a_unified_config_needs_no_keys_of_other_kinds() -> None:
    document = modern("unified") | {"model_type": "gemma4_unified_text"}
    for key in ("hidden_size_per_layer_input", "vocab_size_per_layer_input", "enable_moe_block", "num_experts"):
        document.pop(key)
    assert from_hf(document) == gemma4.UNIFIED


def test_the_last_layer_is_global_whatever_the_file_says() -> None:
    document = to_hf(gemma4.DENSE, "bfloat16")
    assert from_hf(document | {"layer_types": ["sliding_attention"] * 6}) == gemma4.DENSE


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"hidden_size": "256"}, "hidden_size"),
        ({"hidden_size": True}, "hidden_size"),
        ({"num_hidden_layers": 1 << 20}, "num_hidden_layers"),
        ({"num_attention_heads": 3}, "num_attention_heads"),
        ({"layer_types": ["sliding_attention"]}, "layer_types"),
        ({"num_kv_shared_layers": 6}, "share"),
        ({"rope_parameters": {"full_attention": {"rope_type": "yarn"}, "sliding_attention": {}}}, "yarn"),
        ({"rope_parameters": 5}, "rope_parameters"),
        (
            {"rope_parameters": {"full_attention": {"partial_rotary_factor": 2.0}, "sliding_attention": {}}},
            "partial_rotary_factor",
        ),
        ({"use_bidirectional_attention": "all"}, "bidirectional"),
        ({"attention_bias": True}, "attention_bias"),
        ({"enable_moe_block": True}, "num_experts"),
        ({"per_layer_config": {"0": {"head_dim": 64}}}, "per_layer_config"),
        ({"per_layer_config": {"5": {"head_dim": -1}}}, "head_dim"),
        ({"per_layer_config": []}, "per_layer_config"),
    ],
)
def test_values_that_make_no_sense_are_refused(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        from_hf(to_hf(gemma4.DENSE, "bfloat16") | change)
