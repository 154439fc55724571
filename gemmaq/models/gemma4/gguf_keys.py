"""GGUF metadata keys of Gemma 4, read and written, and the tensor that llama.cpp wants besides the model's own.

GGUF has no key for proportional rotary embeddings: `rope_freqs` divides the frequencies that do not rotate by 1e30. It
has none for shared projections of keys and values either: a global layer without `attn_v` has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gemmaq.errors import InputError
from gemmaq.models import gguf_numbers
from gemmaq.models.gemma4.config import TextConfig
from gemmaq.models.gemma4.names import LAYER_EMBEDDING, in_layer, to_gguf

ARCHITECTURE = "gemma4"
NORM_SHIFT = 0.0
"""Norms multiply with their weights as Hugging Face stores them."""
ROPE_FREQS = "rope_freqs.weight"
_STILL = 1e30
"""Divisor of frequencies that do not rotate."""

_INTEGERS = {
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "attention.head_count": "num_attention_heads",
    "attention.key_length": "global_head_dim",
    "attention.value_length": "global_head_dim",
    "attention.key_length_swa": "head_dim",
    "attention.value_length_swa": "head_dim",
    "attention.sliding_window": "sliding_window",
    "attention.shared_kv_layers": "num_kv_shared_layers",
    "embedding_length_per_layer_input": "hidden_size_per_layer_input",
    "rope.dimension_count": "global_head_dim",
    "rope.dimension_count_swa": "head_dim",
}
_FLOATS = {
    "rope.freq_base": "rope_theta",
    "rope.freq_base_swa": "rope_local_base_freq",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "final_logit_softcapping": "final_logit_softcapping",
}
_EXPERTS = {
    "expert_count": "num_experts",
    "expert_used_count": "top_k_experts",
    "expert_feed_forward_length": "moe_intermediate_size",
}
_FROM_ZERO = ("attention.shared_kv_layers", "embedding_length_per_layer_input", "final_logit_softcapping")
_USUAL_CAP = 30.0
"""Cap of the logits in llama.cpp where no key says it; 0 is none."""
_REQUIRED = ("block_count", "embedding_length", "attention.head_count")


def from_config(config: TextConfig) -> dict[str, Any]:
    """Keys of a text model, without the architecture as prefix."""
    keys: dict[str, Any] = {key: getattr(config, name) for key, name in _INTEGERS.items()}
    keys |= {key: float(value) for key, name in _FLOATS.items() if (value := getattr(config, name)) is not None}
    keys.setdefault("final_logit_softcapping", 0.0)  # without the key llama.cpp caps at 30
    keys["feed_forward_length"] = config.intermediate_size
    if config.use_double_wide_mlp:
        keys["feed_forward_length"] = [layer.ffn for layer in config.layers]
    keys["attention.head_count_kv"] = config.num_key_value_heads
    if config.num_global_key_value_heads is not None:
        keys["attention.head_count_kv"] = [layer.kv_heads for layer in config.layers]
    keys["attention.sliding_window_pattern"] = list(config.layer_pattern)
    if config.enable_moe_block:
        keys |= {key: getattr(config, name) for key, name in _EXPERTS.items()}
    return keys


def generated(config: TextConfig) -> dict[str, NDArray[np.float32]]:
    """Tensors that no checkpoint has and llama.cpp wants: f32 by name."""
    half = config.global_head_dim // 2
    rotating = int(config.global_head_dim * config.partial_rotary_factor / 2)
    return {ROPE_FREQS: np.where(np.arange(half) < rotating, 1.0, _STILL).astype(np.float32)}


def to_config(
    keys: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], *, architecture: str = ARCHITECTURE
) -> TextConfig:
    """Config of a text model from its GGUF keys and tensors.

    Args:
        keys: All keys of the file.
        shapes: Shape of every tensor by its GGUF name, rows first.
        architecture: In front of the model's keys.

    Raises:
        InputError: A key is missing or of the wrong kind.
    """
    values = gguf_numbers.read(
        keys,
        architecture,
        integers=_INTEGERS | _EXPERTS,
        floats=_FLOATS,
        required=_REQUIRED,
        from_zero=(*_FROM_ZERO, *_EXPERTS),
    )
    gguf_numbers.unscaled(keys, architecture)
    values["final_logit_softcapping"] = values.get("final_logit_softcapping", _USUAL_CAP) or None
    layers = values["num_hidden_layers"]
    if values.get("num_kv_shared_layers", 0) >= layers:
        raise InputError(f"GGUF key {architecture}.attention.shared_kv_layers is {values['num_kv_shared_layers']}")
    flags = tuple(
        bool(flag) for flag in gguf_numbers.per_layer(keys, f"{architecture}.attention.sliding_window_pattern", layers)
    )
    ffn = gguf_numbers.per_layer(keys, f"{architecture}.feed_forward_length", layers)
    kv_heads = gguf_numbers.per_layer(keys, f"{architecture}.attention.head_count_kv", layers)
    is_wide = ffn[-1] != ffn[0]
    first_local, first_global = (flags.index(kind) if kind in flags else 0 for kind in (True, False))
    missing_v = to_gguf(in_layer(first_global, "self_attn.v_proj")) not in shapes
    embeddings = {name: shapes.get(to_gguf(name), (1,))[0] for name in ("model.embed_tokens.weight", LAYER_EMBEDDING)}
    config = TextConfig(
        **values,
        num_key_value_heads=kv_heads[first_local],
        num_global_key_value_heads=kv_heads[first_global] if missing_v else None,
        attention_k_eq_v=missing_v,
        intermediate_size=ffn[0],
        use_double_wide_mlp=is_wide,
        enable_moe_block=bool(values.get("num_experts")),
        layer_pattern=flags,
        vocab_size=embeddings["model.embed_tokens.weight"],
        vocab_size_per_layer_input=embeddings[LAYER_EMBEDDING],
        **gguf_numbers.token_ids(keys),
    )
    if min(*kv_heads, *ffn) < 1:
        raise InputError(f"GGUF keys of {architecture} give a layer 0 heads or a feed-forward part of width 0")
    if [layer.ffn for layer in config.layers] != ffn or [layer.kv_heads for layer in config.layers] != kv_heads:
        raise InputError("feed_forward_length or head_count_kv of the layers are not those of a Gemma 4 model")
    if config.vocab_size_per_layer_input == 1:
        config = replace(config, vocab_size_per_layer_input=config.vocab_size)
    return config
