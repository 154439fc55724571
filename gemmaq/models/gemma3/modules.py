"""Decoder layers of Gemma 3 in transformers. Every function imports torch and transformers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gemmaq.models.gemma3.config import TextConfig, to_hf
from gemmaq.models.masks import attention_mask as attention_mask


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


def rms_norm(hidden: Any, weight: Any, epsilon: float) -> Any:
    """RMS norm of f32 [..., hidden], which multiplies with 1 + weight."""
    import torch

    scale = torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + epsilon)
    return hidden * scale * (1 + weight)


def embedding_scale(config: TextConfig) -> float:
    """Factor of the embedding's rows at the model's input."""
    return float(config.hidden_size**0.5)


def layer_inputs(config: TextConfig, embedded: Any, outside: Mapping[str, Any]) -> Any:
    """None: layers take nothing besides the hidden state."""
    return None


def run(
    module: Any, hidden: Any, layer_input: Any, shared: Mapping[str, Any], attention: Mapping[str, Any]
) -> tuple[Any, Mapping[str, Any]]:
    """Run a decoder layer, which shares nothing with other layers; see `layers.Modules`."""
    out = module(hidden, **attention)
    return (out[0] if isinstance(out, tuple) else out), shared


def expert_inputs(experts: Any, expert: int, inputs: Any) -> dict[str, Any]:
    """Nothing: layers have no experts."""
    return {}
