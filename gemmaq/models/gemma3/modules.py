"""Decoder layers of Gemma 3 in transformers. Every function imports torch and transformers."""

from __future__ import annotations

import inspect
from typing import Any

from gemmaq.models.gemma3.config import TextConfig, to_hf


def hf_config(config: TextConfig) -> Any:
    """The configuration object of transformers, for float32 and fused attention."""
    from transformers import Gemma3TextConfig

    result = Gemma3TextConfig(**to_hf(config, "float32"))
    result._attn_implementation = "sdpa"
    return result


def decoder_layer(hf_config: Any, index: int) -> Any:
    """A decoder layer, a torch module on the current default device."""
    from transformers.models.gemma3.modeling_gemma3 import Gemma3DecoderLayer

    return Gemma3DecoderLayer(hf_config, index)


def rotary_embedding(hf_config: Any) -> Any:
    """The rotary embedding, called with (hidden, positions, attention kind)."""
    from transformers.models.gemma3.modeling_gemma3 import Gemma3RotaryEmbedding

    return Gemma3RotaryEmbedding(hf_config)


def attention_kinds(hf_config: Any) -> tuple[str, ...]:
    """Kind of attention of every layer."""
    return tuple(hf_config.layer_types)


def attention_mask(hf_config: Any, kind: str, hidden: Any, positions: Any) -> Any:
    """Mask of a kind of attention for sequences without padding, hidden f32 [batch, length, hidden]."""
    from transformers.masking_utils import create_causal_mask, create_sliding_window_causal_mask

    make = create_sliding_window_causal_mask if kind == "sliding_attention" else create_causal_mask
    cache = "cache" if "cache" in inspect.signature(make).parameters else "past_key_values"  # renamed in 5.x
    return make(config=hf_config, inputs_embeds=hidden, attention_mask=None, position_ids=positions, **{cache: None})


def rms_norm(hidden: Any, weight: Any, epsilon: float) -> Any:
    """RMS norm of f32 [..., hidden], which multiplies with 1 + weight."""
    import torch

    scale = torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + epsilon)
    return hidden * scale * (1 + weight)


def embedding_scale(config: TextConfig) -> float:
    """Factor of the embedding's rows at the model's input."""
    return float(config.hidden_size**0.5)
