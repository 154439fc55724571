"""GGUF metadata keys of Gemma 3, read and written.

GGUF stores no attention scale: llama.cpp takes 1/sqrt(hidden/heads) for a model of 62 layers and 1/sqrt(head_dim) for
any other. A model that needs another scale cannot be expressed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gemmaq.errors import InputError
from gemmaq.models.gemma3.config import TextConfig, pattern
from gemmaq.models.gemma3.vision import checked
from gemmaq.models.vision_config import VisionConfig

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


def to_config(keys: Mapping[str, Any], vocab_size: int) -> TextConfig:
    """Config of a text model from its GGUF keys.

    Args:
        keys: All keys of the file.
        vocab_size: Rows of its embedding.

    Raises:
        InputError: A key is missing or of the wrong kind.
    """
    values: dict[str, Any] = {"vocab_size": vocab_size}
    for names, kind in ((_INTEGERS, int), (_FLOATS, float)):
        for key, name in names.items():
            value = keys.get(f"{ARCHITECTURE}.{key}")
            if value is None:
                if key in _REQUIRED:
                    raise InputError(f"GGUF key {ARCHITECTURE}.{key} is missing")
                continue
            if isinstance(value, bool) or not isinstance(value, (int, kind)) or not 0 < value < 1e12:
                raise InputError(f"GGUF key {ARCHITECTURE}.{key} is {value!r}")
            values[name] = value if kind is int else float(f"{value:.7g}")
    layers = values["num_hidden_layers"]
    if layers > 4096:
        raise InputError(f"GGUF key {ARCHITECTURE}.block_count is {layers}")
    if keys.get(f"{ARCHITECTURE}.rope.scaling.type") == "linear":
        values["rope_factor"] = float(keys.get(f"{ARCHITECTURE}.rope.scaling.factor", 1.0))
    values["layer_pattern"] = _layer_pattern(keys.get(f"{ARCHITECTURE}.attention.sliding_window_pattern", 6), layers)
    ids = {role: keys.get(f"tokenizer.ggml.{role}_token_id") for role in ("bos", "eos", "padding")}
    values |= {"bos_token_id": ids["bos"], "pad_token_id": ids["padding"]}
    values["eos_token_ids"] = (1 if ids["eos"] is None else ids["eos"],)
    config = TextConfig(**values)
    scalar = attention_scalar(config)
    return replace(config, query_pre_attn_scalar=int(scalar) if scalar == int(scalar) else scalar)


def _layer_pattern(value: Any, layers: int) -> tuple[bool, ...]:
    if isinstance(value, int) and value > 0:
        return pattern(layers, value)
    flags = tuple(bool(flag) for flag in value) if hasattr(value, "__len__") else ()
    if len(flags) != layers:
        raise InputError(f"GGUF key {ARCHITECTURE}.attention.sliding_window_pattern does not fit {layers} layers")
    return flags


_VISION = {
    "image_size": "image_size",
    "patch_size": "patch_size",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "block_count": "num_hidden_layers",
    "attention.head_count": "num_attention_heads",
    "attention.layer_norm_epsilon": "layer_norm_eps",
    "image_mean": "image_mean",
    "image_std": "image_std",
}
_USUAL_SCALE = 4
"""Default of clip.vision.projector.scale_factor: patches to tokens along the side of an image."""


def from_vision(config: VisionConfig, text_hidden: int) -> dict[str, Any]:
    """Keys of an mmproj file, with prefix."""
    keys: dict[str, Any] = {
        "clip.has_vision_encoder": True,
        "clip.projector_type": "gemma3",
        "clip.use_gelu": True,
        "clip.vision.projection_dim": text_hidden,
    }
    keys |= {f"clip.vision.{key}": getattr(config, name) for key, name in _VISION.items()}
    scale = config.image_size // config.patch_size // math.isqrt(config.tokens)
    if scale not in (0, _USUAL_SCALE):
        keys["clip.vision.projector.scale_factor"] = scale
    return keys


def to_vision(keys: Mapping[str, Any]) -> VisionConfig:
    """Vision config from the keys of an mmproj file.

    Raises:
        InputError: A key is missing or of the wrong kind, or the projector is another one.
    """
    if keys.get("clip.projector_type") != "gemma3":
        raise InputError(f"the projector is of the type {keys.get('clip.projector_type')!r}, not gemma3")
    values: dict[str, Any] = {}
    for key, name in _VISION.items():
        value = keys.get(f"clip.vision.{key}")
        whole = name not in ("layer_norm_eps", "image_mean", "image_std")
        if name.startswith("image_") and not whole:
            numbers = tuple(float(f"{v:.7g}") for v in value) if value is not None and hasattr(value, "__len__") else ()
            if len(numbers) == 3:
                values[name] = numbers
        elif isinstance(value, bool) or not isinstance(value, int if whole else float) or not 0 < value < 1 << 32:
            raise InputError(f"GGUF key clip.vision.{key} is {value!r:.60}")
        else:
            values[name] = value if whole else float(f"{value:.7g}")
    scale = keys.get("clip.vision.projector.scale_factor", _USUAL_SCALE)
    if not isinstance(scale, int) or isinstance(scale, bool) or scale < 1:
        raise InputError(f"GGUF key clip.vision.projector.scale_factor is {scale!r:.60}")
    values["tokens"] = max(1, values["image_size"] // values["patch_size"] // scale) ** 2
    return checked(VisionConfig(**values))
