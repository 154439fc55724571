"""config.json of Gemma 4: the flat keys of the releases and the `per_layer_config` of transformers 5.15 and later.

Both are read; the flat keys are written, every one of them, since other runtimes know no others and have other
defaults. Defaults are those of transformers' Gemma4TextConfig and Gemma4UnifiedTextConfig. The text side of a unified
model computes like that of any other Gemma 4 and is written as one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from gemmaq.errors import InputError
from gemmaq.models import hf_values
from gemmaq.models.config_keys import GELU_TANH, ConfigKeys
from gemmaq.models.gemma4.config import TextConfig, pattern
from gemmaq.models.hf_values import is_count

TEXT = "Gemma4ForCausalLM"
MULTIMODAL = "Gemma4ForConditionalGeneration"
MODEL_TYPE, TEXT_MODEL_TYPE = "gemma4", "gemma4_text"
NESTED = True
UNIFIED, UNIFIED_TEXT = "gemma4_unified", "gemma4_unified_text"
ARCHITECTURES = (
    TEXT, MULTIMODAL, "Gemma4UnifiedForConditionalGeneration", "Gemma4UnifiedForCausalLM",
    "Gemma4TextModel", "Gemma4Model", "Gemma4UnifiedTextModel", "Gemma4UnifiedModel",
    MODEL_TYPE, TEXT_MODEL_TYPE,
    UNIFIED, UNIFIED_TEXT,
)  # fmt: skip
"""Class names and model types of config.json that are read."""

_GLOBAL_PERIOD = 6
_UNIFIED_DEFAULTS = {"sliding_window": 1024, "max_position_embeddings": 262144, "hidden_size_per_layer_input": 0}
_FROM_ZERO = ("hidden_size_per_layer_input", "num_kv_shared_layers", "bos_token_id", "pad_token_id")
_OF_EXPERTS = ("num_experts", "top_k_experts", "moe_intermediate_size")
_SPECIAL = ("layer_pattern", "eos_token_ids")
_FLAT_ROPE = ("rope_theta", "rope_local_base_freq", "partial_rotary_factor")
"""Keys of other families; transformers reads those in `rope_parameters` alone."""

KEYS = ConfigKeys(
    read=frozenset(
        (
            *(field.name for field in fields(TextConfig)),
            *("eos_token_id", "layer_types", "per_layer_config", "rope_parameters", "use_bidirectional_attention"),
        )
    ),
    fixed={
        "hidden_activation": GELU_TANH,
        "attention_bias": (False,),
        "rope_scaling": (None, {}),
        "is_causal": (True,),
    },
    harmless=frozenset(("expert_intermediate_size", "mtp_per_layer_config", "backbone_hidden_size")),
)
"""Keys of Gemma4TextConfig and Gemma4UnifiedTextConfig."""


def from_hf(config: Mapping[str, Any]) -> TextConfig:
    """Read a config.json, text-only or with towers.

    Raises:
        InputError: A value is of the wrong kind, or no runtime can run this variant.
    """
    merged = hf_values.text_side(config)
    KEYS.check(config, "Gemma 4")
    if merged.get("use_bidirectional_attention") == "all":
        raise InputError("config.json: attention is bidirectional, an embedding model; only causal models are read")
    defaults = _UNIFIED_DEFAULTS if merged.get("model_type") in (UNIFIED, UNIFIED_TEXT) else {}
    said = {name: value for name, value in merged.items() if value is not None and name not in _FLAT_ROPE}
    checked = _checked({**defaults, **said, **_rope(merged)})
    for name in _FLAT_ROPE:
        if merged.get(name) not in (None, getattr(checked, name)):
            raise InputError(
                f"config.json: {name} is {merged[name]!r:.60}, but {getattr(checked, name):g} in rope_parameters",
                "transformers reads rope_parameters alone, other runtimes may not: remove the key",
            )
    if not checked.hidden_size_per_layer_input:
        checked = replace(checked, vocab_size_per_layer_input=checked.vocab_size)
    pattern_ = _layer_pattern(merged, checked.num_hidden_layers)
    checked = replace(checked, layer_pattern=pattern_, eos_token_ids=hf_values.ends(config))
    return _checked_sharing(_with_layer_settings(checked, merged.get("per_layer_config")))


def _rope(text: Mapping[str, Any]) -> dict[str, Any]:
    """Rope fields from `rope_parameters`."""
    entries = hf_values.rope(text, local="default", everywhere="proportional")
    spelled = {
        "rope_theta": ("full_attention", "rope_theta"),
        "partial_rotary_factor": ("full_attention", "partial_rotary_factor"),
        "rope_local_base_freq": ("sliding_attention", "rope_theta"),
    }
    found = {field: entries.get(kind, {}).get(key) for field, (kind, key) in spelled.items()}
    return {field: value for field, value in found.items() if value is not None}


def _layer_pattern(text: Mapping[str, Any], layers: int) -> tuple[bool, ...]:
    """One flag per layer; transformers makes the last layer global whatever the file says."""
    local = hf_values.local_layers(text, layers)
    return pattern(layers, _GLOBAL_PERIOD) if local is None else (*local[:-1], False)


def _with_layer_settings(config: TextConfig, settings: Any) -> TextConfig:
    """The config with head sizes and KV heads of the global layers from `per_layer_config`.

    Raises:
        InputError: The settings differ between global layers, or name other layers or other fields.
    """
    if settings is None:
        return config
    if not isinstance(settings, Mapping) or not all(isinstance(entry, Mapping) for entry in settings.values()):
        raise InputError("config.json: per_layer_config is not an object of objects")
    if not settings:
        return config
    wanted = {str(at) for at, local in enumerate(config.layer_pattern) if not local}
    entries = list(settings.values())
    unknown = {key for entry in entries for key in entry} - {"head_dim", "num_key_value_heads"}
    if set(settings) != wanted or any(entry != entries[0] for entry in entries) or unknown:
        raise InputError(
            "config.json: per_layer_config sets more than head_dim and num_key_value_heads of the global layers",
            "no runtime but transformers can run such a model",
        )
    values = {"global_head_dim": entries[0].get("head_dim", config.head_dim)}
    heads = entries[0].get("num_key_value_heads")
    if heads is not None and not config.attention_k_eq_v and heads != config.num_key_value_heads:
        raise InputError("config.json: per_layer_config sets num_key_value_heads where attention_k_eq_v is false")
    if config.attention_k_eq_v:
        values["num_global_key_value_heads"] = heads
    for name, value in values.items():
        if value is not None and not is_count(value):
            raise InputError(f"config.json: per_layer_config has {name} {value!r:.60}")
    return replace(config, **values)


def _checked(values: Mapping[str, Any]) -> TextConfig:
    """A TextConfig from field values; raises InputError for a value of the wrong kind or out of range."""
    config = hf_values.fill(TextConfig, values, "config.json: ", from_zero=_FROM_ZERO, skip=_SPECIAL)
    hf_values.check_layers(config.num_hidden_layers, config.num_attention_heads, config.num_key_value_heads)
    if config.partial_rotary_factor > 1:
        raise InputError(f"config.json: partial_rotary_factor is {config.partial_rotary_factor}")
    missing = [name for name in _OF_EXPERTS if config.enable_moe_block and getattr(config, name) is None]
    if missing:
        raise InputError(f"config.json: enable_moe_block is true, but {missing[0]} is missing")
    return config


def _checked_sharing(config: TextConfig) -> TextConfig:
    """The config, if every layer that shares keys and values has an earlier layer of its kind to share with."""
    own, shared = config.layer_pattern[: config.own_layers], config.layer_pattern[config.own_layers :]
    if not config.backbone_hidden_size and (config.own_layers < 1 or not set(shared) <= set(own)):
        raise InputError(f"config.json: {config.num_kv_shared_layers} layers share keys and values of no layer")
    heads = config.num_global_key_value_heads
    if config.attention_k_eq_v and heads and config.num_attention_heads % heads:
        raise InputError("config.json: num_attention_heads is not a multiple of num_global_key_value_heads")
    return config


def to_hf(config: TextConfig, dtype: str) -> dict[str, Any]:
    """config.json of a text-only folder, every key explicit.

    Args:
        config: Dimensions of the model.
        dtype: torch's name of the stored dtype, such as `bfloat16`.
    """
    rope = {
        "full_attention": {
            "partial_rotary_factor": config.partial_rotary_factor,
            "rope_theta": config.rope_theta,
            "rope_type": "proportional",
        },
        "sliding_attention": {"rope_theta": config.rope_local_base_freq, "rope_type": "default"},
    }
    special = (*_SPECIAL, "rope_theta", "rope_local_base_freq", "partial_rotary_factor", "backbone_hidden_size")
    document = {
        **{field.name: getattr(config, field.name) for field in fields(config) if field.name not in special},
        **hf_values.text_keys(config.layer_pattern, config.eos_token_ids, dtype),
        "architectures": [TEXT],
        "model_type": TEXT_MODEL_TYPE,
        "rope_parameters": rope,
        "use_bidirectional_attention": None,
    }
    return dict(sorted(document.items()))


def check_mlx(config: TextConfig) -> None:
    """Nothing to refuse: MLX's runtimes read all of it."""
    del config


def nested(document: dict[str, Any]) -> dict[str, Any]:
    """config.json in the layout of models with towers, from that of a text-only folder."""
    return hf_values.nested(document, MULTIMODAL, MODEL_TYPE)


def with_vocabulary(config: TextConfig, size: int) -> TextConfig:
    """The config with another number of embedding rows."""
    return replace(config, vocab_size=size)
