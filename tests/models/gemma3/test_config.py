"""config.json: every spelling is read as transformers reads it, and what no runtime could run is refused."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest

from gemmaq.errors import InputError
from gemmaq.models.families import of_config
from gemmaq.models.gemma3.config import TextConfig, from_hf, pattern, to_hf
from gemmaq.models.gemma3.sizes import SIZES

TEXT = {"architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text"}
LINEAR = {"rope_type": "linear", "factor": 8.0}
LOCAL = {"rope_type": "default", "rope_theta": 5e3}

SPELLINGS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "nulls": {"num_hidden_layers": None, "head_dim": None, "rope_scaling": None, "eos_token_id": None},
    "4B as published": {
        "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34, "sliding_window": 1024,
        "rope_scaling": LINEAR, "torch_dtype": "bfloat16",
    },
    "old rope": {"rope_theta": 5e5, "rope_local_base_freq": 2e4, "rope_scaling": LINEAR},
    "rope type under its oldest name": {"rope_scaling": {"type": "linear", "factor": 4}},
    "default rope": {"rope_scaling": {"rope_type": "default"}},
    "new rope": {
        "rope_parameters": {"full_attention": {**LINEAR, "rope_theta": 2e6}, "sliding_attention": LOCAL},
        "dtype": "bfloat16",
    },
    "new rope with the default type": {
        "rope_parameters": {"full_attention": {**LOCAL, "rope_theta": 3e6}, "sliding_attention": LOCAL}
    },
    "layer types": {"num_hidden_layers": 3, "layer_types": ["full_attention", "sliding_attention", "full_attention"]},
    "pattern": {"num_hidden_layers": 7, "sliding_window_pattern": 3},
    "whole": {
        "num_hidden_layers": 5, "num_attention_heads": 6, "num_key_value_heads": 3, "head_dim": 48, "vocab_size": 1000,
        "hidden_size": 96, "intermediate_size": 192, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5,
        "query_pre_attn_scalar": 168, "final_logit_softcapping": 30.0, "bos_token_id": 7, "pad_token_id": 9,
        "eos_token_id": [1, 106],
    },
}  # fmt: skip


def as_transformers_reads(spelled: dict[str, Any]) -> dict[str, Any]:
    """The fields of a TextConfig, as transformers' own class has them."""
    module = pytest.importorskip("transformers.models.gemma3.configuration_gemma3")
    theirs = module.Gemma3TextConfig(**copy.deepcopy({k: v for k, v in spelled.items() if v is not None}))
    full, local = (theirs.rope_parameters[f"{kind}_attention"] for kind in ("full", "sliding"))
    eos = theirs.eos_token_id
    return {
        **{name: getattr(theirs, name) for name in TextConfig.__dataclass_fields__ if hasattr(theirs, name)},
        "rope_theta": full["rope_theta"],
        "rope_local_base_freq": local["rope_theta"],
        "rope_factor": full.get("factor", 1.0),
        "layer_pattern": tuple(kind == "sliding_attention" for kind in theirs.layer_types),
        "eos_token_ids": tuple(eos) if isinstance(eos, list) else (eos,),
    }


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_is_read_as_transformers_reads_it(spelling: str) -> None:
    ours = from_hf({**TEXT, **SPELLINGS[spelling]})
    theirs = as_transformers_reads(SPELLINGS[spelling])
    assert set(theirs) == set(TextConfig.__dataclass_fields__)
    assert {name: getattr(ours, name) for name in theirs} == theirs


def test_missing_keys_have_the_defaults_of_transformers() -> None:
    config = from_hf(TEXT)
    assert config == TextConfig(layer_pattern=pattern(26, 6))
    assert (config.num_attention_heads, config.num_key_value_heads, config.head_dim) == (8, 4, 256)
    assert (config.vocab_size, config.sliding_window, config.global_layers) == (262208, 4096, 4)


@pytest.mark.parametrize("key", ["sliding_window_pattern", "_sliding_window_pattern"])
def test_the_period_of_global_layers_is_read_under_both_names(key: str) -> None:
    assert from_hf({**TEXT, "num_hidden_layers": 4, key: 2}).layer_pattern == (True, False, True, False)


def test_layer_types_outweigh_a_period() -> None:
    spelled = {"num_hidden_layers": 2, "layer_types": ["full_attention"] * 2, "sliding_window_pattern": 6}
    assert from_hf({**TEXT, **spelled}).layer_pattern == (False, False)


@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
def test_the_dtype_is_read_from_the_tensors_not_from_the_config(key: str) -> None:
    assert from_hf({**TEXT, key: "float64"}) == from_hf(TEXT)


def test_the_text_part_of_a_multimodal_config_counts() -> None:
    text = {"hidden_size": 2560, "num_hidden_layers": 34}
    whole = {"architectures": ["Gemma3ForConditionalGeneration"], "text_config": text, "hidden_size": 1}
    config = from_hf({**whole, "vision_config": {"hidden_size": 1152}, "eos_token_id": [1, 106]})
    assert (config.hidden_size, config.num_hidden_layers, config.eos_token_ids) == (2560, 34, (1, 106))


@pytest.mark.parametrize("size", SIZES, ids=lambda size: size.name)
def test_a_written_config_is_read_back(size: Any) -> None:
    for config in (size.config, replace(size.config, eos_token_ids=(1, 106), query_pre_attn_scalar=168)):
        assert from_hf(to_hf(config, "bfloat16")) == config


def test_a_written_config_is_read_back_by_transformers() -> None:
    config = replace(SIZES[2].config, eos_token_ids=(1, 106))
    theirs = as_transformers_reads(to_hf(config, "bfloat16"))
    assert {name: getattr(config, name) for name in theirs} == theirs


@pytest.mark.parametrize(
    ("document", "name"),
    [
        ({"architectures": ["LlamaForCausalLM"]}, "LlamaForCausalLM"),
        ({"architectures": ["Gemma3ForSequenceClassification"]}, "Gemma3ForSequenceClassification"),
        ({"architectures": [], "model_type": "qwen2"}, "qwen2"),
        ({"architectures": None, "model_type": ["gemma3"]}, "gemma3"),
        ({"architectures": "Gemma3ForCausalLM"}, "unknown"),
        ({}, "unknown"),
    ],
)
def test_another_architecture_is_refused_by_name(document: dict[str, Any], name: str) -> None:
    with pytest.raises(InputError, match=name) as refused:
        of_config(document)
    assert "Gemma3ForCausalLM" in str(refused.value.hint)


@pytest.mark.parametrize("document", [{"model_type": "gemma3_text"}, {"architectures": [], "model_type": "gemma3"}])
def test_the_model_type_does_where_no_architecture_is_named(document: dict[str, Any]) -> None:
    assert of_config(document).configs.from_hf(document) == from_hf(TEXT)


BROKEN: list[dict[str, Any]] = [
    *({"hidden_size": value} for value in (0, -1, 1.5, "640", True, 1 << 31, [640], float("nan"))),
    {"num_hidden_layers": 5000},
    {"num_attention_heads": 5},
    {"rope_theta": float("inf")},
    {"rms_norm_eps": "small"},
    {"query_pre_attn_scalar": -1},
    *({"eos_token_id": value} for value in ("1", [], [1, "2"], -1, [True], 1 << 40)),
    {"bos_token_id": -1},
    {"pad_token_id": "0"},
    *({"rope_scaling": value} for value in ("linear", {"rope_type": "yarn", "factor": 2}, {"type": ["linear"]})),
    *({"rope_scaling": {"rope_type": "linear", **rest}} for rest in ({}, {"factor": "8"}, {"factor": 0})),
    *({"rope_parameters": value} for value in ([1], {"full_attention": 1}, {"sliding_attention": LINEAR})),
    {"layer_types": ["sliding_attention"] * 25},
    {"layer_types": ["sliding_attention"] * 25 + ["linear_attention"]},
    {"layer_types": ["sliding_attention"] * 25 + [["full_attention"]]},
    {"sliding_window_pattern": -6},
    {"sliding_window_pattern": "6"},
    {"attention_bias": True},
    {"attn_logit_softcapping": 50.0},
    {"use_bidirectional_attention": True},
]
WORDS = {
    "rope_scaling": "rope",
    "rope_parameters": "rope",
    "num_attention_heads": "num_attention_heads",
    "use_bidirectional_attention": "bidirectional",
}


@pytest.mark.parametrize("broken", BROKEN, ids=str)
def test_a_value_no_model_can_have_is_refused_by_name(broken: dict[str, Any]) -> None:
    (key,) = broken
    with pytest.raises(InputError, match=WORDS.get(key, key)):
        from_hf({**TEXT, **broken})
