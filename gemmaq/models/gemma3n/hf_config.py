"""config.json of Gemma 3n: the flat keys of rope of the releases and the `rope_parameters` of transformers 5.

Both are read and both are written, and every other key, since runtimes demand different ones. Defaults are those of
transformers' Gemma3nTextConfig.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from gemmaq.errors import InputError
from gemmaq.models import hf_values
from gemmaq.models.config_keys import GELU_TANH, PLAIN_ROPE, ConfigKeys
from gemmaq.models.gemma3n.config import TextConfig, pattern
from gemmaq.models.hf_values import is_count, is_number

TEXT = "Gemma3nForCausalLM"
MULTIMODAL = "Gemma3nForConditionalGeneration"
MODEL_TYPE, TEXT_MODEL_TYPE = "gemma3n", "gemma3n_text"
NESTED = True
ARCHITECTURES = (TEXT, MULTIMODAL, "Gemma3nTextModel", "Gemma3nModel", MODEL_TYPE, TEXT_MODEL_TYPE)
"""Class names and model types of config.json that are read."""

_SPECIAL = ("layer_pattern", "intermediate_size", "activation_sparsity_pattern", "eos_token_ids")
_FROM_ZERO = ("altup_active_idx", "num_kv_shared_layers", "bos_token_id", "pad_token_id")
KEYS = ConfigKeys(
    read=frozenset((*(field.name for field in fields(TextConfig)), "eos_token_id", "layer_types", "rope_parameters")),
    fixed={
        "hidden_activation": GELU_TANH,
        "attention_bias": (False,),
        "attn_logit_softcapping": (None,),
        "is_causal": (True,),
        "partial_rotary_factor": PLAIN_ROPE,
        "per_layer_config": (None, {}),
        "rope_scaling": (None, {}),
        "use_bidirectional_attention": (False,),
    },
    harmless=frozenset(
        ("altup_lr_multiplier", "query_pre_attn_scalar", "sliding_window_pattern", "_sliding_window_pattern")
    ),
)
"""Keys of Gemma3nTextConfig; it reads `layer_types` and no period, and scales no queries."""
_SPARSE_LAYERS, _SPARSITY = 10, 0.95


def from_hf(config: Mapping[str, Any]) -> TextConfig:
    """Read a config.json, text-only or with towers.

    Raises:
        InputError: A value is of the wrong kind, or no runtime can run this variant.
    """
    merged = hf_values.text_side(config)
    KEYS.check(config, "Gemma 3n")
    if "final_logit_softcapping" in merged and merged["final_logit_softcapping"] is None:
        raise InputError("config.json: final_logit_softcapping is null", "all runtimes cap the logits of Gemma 3n")
    checked = _checked(merged | _rope(merged))
    layers = checked.num_hidden_layers
    widths = _per_layer(merged, "intermediate_size", layers, [TextConfig().intermediate_size[0]] * layers)
    sparse = _SPARSE_LAYERS if layers > _SPARSE_LAYERS else 0
    usual = [_SPARSITY] * sparse + [0.0] * (layers - sparse)
    sparsity = _per_layer(merged, "activation_sparsity_pattern", layers, usual)
    if not all(is_count(width) for width in widths):
        raise InputError(f"config.json: intermediate_size is {widths!r:.60}")
    if not all(is_number(share) and 0 <= share < 1 for share in sparsity):
        raise InputError(f"config.json: activation_sparsity_pattern is {sparsity!r:.60}")
    return _checked_sharing(
        replace(
            checked,
            intermediate_size=tuple(widths),
            activation_sparsity_pattern=tuple(map(float, sparsity)),
            layer_pattern=hf_values.local_layers(merged, layers) or pattern(layers),
            eos_token_ids=hf_values.ends(config),
        )
    )


def _rope(text: Mapping[str, Any]) -> dict[str, Any]:
    """Rope fields from `rope_parameters`, which comes before the flat keys."""
    entries = hf_values.rope(text, local="default", everywhere="default")
    spelled = {"rope_theta": "full_attention", "rope_local_base_freq": "sliding_attention"}
    found = {field: entries.get(kind, {}).get("rope_theta") for field, kind in spelled.items()}
    return {field: value for field, value in found.items() if value is not None}


def _per_layer(config: Mapping[str, Any], key: str, layers: int, usual: list[Any]) -> list[Any]:
    """A value that has one number for all layers, or one for each; `usual` if it is not there."""
    value = config.get(key)
    if value is None:
        return usual
    if not isinstance(value, list):
        return [value] * layers
    if len(value) != layers:
        raise InputError(f"config.json: {key} has {len(value)} numbers for {layers} layers")
    return value


def _checked(values: Mapping[str, Any]) -> TextConfig:
    """A TextConfig from field values; raises InputError for a value of the wrong kind or out of range."""
    config = hf_values.fill(TextConfig, values, "config.json: ", from_zero=_FROM_ZERO, skip=_SPECIAL)
    hf_values.check_layers(config.num_hidden_layers, config.num_attention_heads, config.num_key_value_heads)
    if not 2 <= config.altup_num_inputs <= 64 or config.altup_active_idx >= config.altup_num_inputs:
        raise InputError("config.json: altup_num_inputs and altup_active_idx make no sense")
    return config


def _checked_sharing(config: TextConfig) -> TextConfig:
    """The config, if every layer that shares keys and values has an earlier layer of its kind to share with."""
    own, shared = config.layer_pattern[: max(0, config.own_layers)], config.layer_pattern[config.own_layers :]
    if config.own_layers < 1 or not set(shared) <= set(own):
        raise InputError(f"config.json: {config.num_kv_shared_layers} layers share keys and values of no layer")
    return config


def to_hf(config: TextConfig, dtype: str) -> dict[str, Any]:
    """config.json of a text-only folder, every key explicit.

    Args:
        config: Dimensions of the model.
        dtype: torch's name of the stored dtype, such as `bfloat16`.
    """
    thetas = {"full_attention": config.rope_theta, "sliding_attention": config.rope_local_base_freq}
    document = {
        **{field.name: getattr(config, field.name) for field in fields(config) if field.name not in _SPECIAL},
        **hf_values.text_keys(config.layer_pattern, config.eos_token_ids, dtype),
        "activation_sparsity_pattern": list(config.activation_sparsity_pattern),
        "architectures": [TEXT],
        "intermediate_size": list(config.intermediate_size),
        "model_type": TEXT_MODEL_TYPE,
        "rope_parameters": {kind: {"rope_theta": theta, "rope_type": "default"} for kind, theta in thetas.items()},
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
