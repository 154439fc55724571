"""GGUF metadata keys of Gemma 3, read and written.

GGUF stores no attention scale: llama.cpp takes 1/sqrt(hidden/heads) for a model of 62 layers and 1/sqrt(head_dim) for
any other. A model that needs another scale cannot be expressed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gemmaq.errors import InputError
from gemmaq.models import gguf_numbers
from gemmaq.models.gemma3.config import TextConfig, pattern
from gemmaq.models.gemma3.names import EMBEDDING, to_gguf

ARCHITECTURE = "gemma3"
NORM_SHIFT = 1.0
"""GGUF stores 1 + w of a norm's weights w: llama.cpp multiplies with what is stored."""
_LAYERS_OF_27B = 62

_INTEGERS = {
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.value_length": "head_dim",
    "attention.sliding_window": "sliding_window",
}
_FLOATS = {
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "rope.freq_base": "rope_theta",
    "rope.freq_base_swa": "rope_local_base_freq",
    "final_logit_softcapping": "final_logit_softcapping",
}
_OLLAMA = {"rope.local.freq_base": "rope.freq_base_swa", "rope.global.freq_base": "rope.freq_base"}
"""Keys of Ollama's converter -> those of llama.cpp's."""
_SCALED_LAYERS, _SCALE = (34, 48, 62), 8.0
"""Layers of the published models with vision, and their rope scaling, which Ollama's converter left out."""
_REQUIRED = ("block_count", "embedding_length", "feed_forward_length", "attention.head_count")


def attention_scalar(config: TextConfig) -> float:
    """The query_pre_attn_scalar that llama.cpp will use for a model of these dimensions."""
    if config.num_hidden_layers == _LAYERS_OF_27B:
        return config.hidden_size / config.num_attention_heads
    return config.head_dim


def from_config(config: TextConfig) -> dict[str, int | float | str | list[bool]]:
    """Keys of a text model, without the architecture as prefix.

    Raises:
        InputError: llama.cpp would run the model with another attention scale.
    """
    if config.query_pre_attn_scalar != attention_scalar(config):
        raise InputError(
            f"query_pre_attn_scalar is {config.query_pre_attn_scalar:g}, but GGUF cannot hold it and llama.cpp would "
            f"compute with {attention_scalar(config):g}",
            "write safetensors instead",
        )
    keys: dict[str, int | float | str | list[bool]] = {key: getattr(config, name) for key, name in _INTEGERS.items()}
    keys |= {key: float(value) for key, name in _FLOATS.items() if (value := getattr(config, name)) is not None}
    if config.rope_factor != 1:
        keys |= {"rope.scaling.type": "linear", "rope.scaling.factor": float(config.rope_factor)}
    if config.period is None:
        keys["attention.sliding_window_pattern"] = list(config.layer_pattern)
    elif config.period != 6:
        keys["attention.sliding_window_pattern"] = config.period
    return keys


def generated(config: TextConfig) -> dict[str, NDArray[np.float32]]:
    """No tensors: llama.cpp needs none but the model's own."""
    return {}


def to_config(
    keys: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], *, architecture: str = ARCHITECTURE
) -> TextConfig:
    """Config of a text model from its GGUF keys.

    Args:
        keys: All keys of the file.
        shapes: Shape of every tensor by its GGUF name, rows first.
        architecture: Beginning of the keys.

    Raises:
        InputError: A key is missing or of the wrong kind.
    """
    keys = {
        **{
            f"{architecture}.{old}": keys[f"{architecture}.{new}"]
            for new, old in _OLLAMA.items()
            if f"{architecture}.{new}" in keys
        },
        **keys,
    }
    values = gguf_numbers.read(keys, architecture, integers=_INTEGERS, floats=_FLOATS, required=_REQUIRED)
    values |= gguf_numbers.token_ids(keys) | {"vocab_size": shapes.get(to_gguf(EMBEDDING), (1,))[0]}
    values["rope_factor"] = gguf_numbers.rope_factor(keys, architecture)
    if f"{architecture}.vision.block_count" in keys and values["num_hidden_layers"] in _SCALED_LAYERS:
        values["rope_factor"] = _SCALE if values["rope_factor"] == 1 else values["rope_factor"]
    key = f"{architecture}.attention.sliding_window_pattern"
    values["layer_pattern"] = _layer_pattern(key, keys.get(key, 6), values["num_hidden_layers"])
    config = TextConfig(**values)
    scalar = attention_scalar(config)
    return replace(config, query_pre_attn_scalar=int(scalar) if scalar == int(scalar) else scalar)


def _layer_pattern(key: str, value: Any, layers: int) -> tuple[bool, ...]:
    if isinstance(value, int) and value > 0:
        return pattern(layers, value)
    flags = tuple(bool(flag) for flag in value) if hasattr(value, "__len__") else ()
    if len(flags) != layers:
        raise InputError(f"GGUF key {key} does not fit {layers} layers")
    return flags
