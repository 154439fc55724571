"""Decoder layers of Gemma 4 in transformers. Every function imports torch and transformers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gemmaq.errors import UsageError
from gemmaq.models.gemma4.config import TextConfig
from gemmaq.models.gemma4.hf_config import to_hf
from gemmaq.models.gemma4.names import (
    DOWN_STACK,
    GATE_UP,
    LAYER_EMBEDDING,
    LAYER_PROJECTION,
    LAYER_PROJECTION_NORM,
)
from gemmaq.models.masks import attention_mask as attention_mask


def hf_config(config: TextConfig) -> Any:
    """The configuration object of transformers, for float32 and fused attention.

    Raises:
        UsageError: The installed transformers is too old.
    """
    try:
        from transformers import Gemma4TextConfig
        from transformers.cache_utils import KVSharingDict  # noqa: F401  # which layers that share keys take
    except ImportError as error:
        raise UsageError(
            "the installed transformers cannot run Gemma 4 layer by layer", "pip install -U transformers"
        ) from error
    result = Gemma4TextConfig(**to_hf(config, "float32"))
    result._attn_implementation, result._experts_implementation = "sdpa", "eager"
    return result


def decoder_layer(hf_config: Any, index: int) -> Any:
    """A decoder layer, a torch module on the current default device."""
    from transformers.models.gemma4.modeling_gemma4 import Gemma4TextDecoderLayer

    return Gemma4TextDecoderLayer(hf_config, index)


def rotary_embedding(hf_config: Any) -> Any:
    """The rotary embedding, called with (hidden, positions, attention kind)."""
    from transformers.models.gemma4.modeling_gemma4 import Gemma4TextRotaryEmbedding

    return Gemma4TextRotaryEmbedding(hf_config)


def attention_kinds(hf_config: Any) -> tuple[str, ...]:
    """Kind of attention of every layer."""
    return tuple(hf_config.layer_types)


def rms_norm(hidden: Any, weight: Any, epsilon: float) -> Any:
    """RMS norm of f32 [..., hidden], which multiplies with the weight."""
    import torch

    return hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + epsilon) * weight


def embedding_scale(config: TextConfig) -> float:
    """Factor of the embedding's rows at the model's input."""
    return float(config.hidden_size**0.5)


def layer_inputs(config: TextConfig, embedded: Any, outside: Mapping[str, Any]) -> Any:
    """Inputs that layers get for tokens: their rows of the layer embedding, and a projection of their embedding."""
    from torch.nn import functional

    shape = (*embedded.shape[:-1], config.num_hidden_layers, config.layer_embedding)
    projected = functional.linear(embedded, outside[LAYER_PROJECTION]) * config.hidden_size**-0.5
    normed = rms_norm(projected.reshape(shape), outside[LAYER_PROJECTION_NORM], config.rms_norm_eps)
    rows = outside[LAYER_EMBEDDING].reshape(shape) * config.layer_embedding**0.5
    return (normed + rows) * 2**-0.5


def run(
    module: Any, hidden: Any, layer_input: Any, shared: Mapping[str, Any], attention: Mapping[str, Any]
) -> tuple[Any, Mapping[str, Any]]:
    """Run a decoder layer; keys and values of the layers that others share are kept by the kind of attention."""
    from transformers.cache_utils import KVSharingDict

    states = KVSharingDict(shared)
    out = module(hidden, layer_input, shared_kv_states=states, **attention)
    return out, dict(states)


def expert_inputs(experts: Any, expert: int, inputs: Any) -> dict[str, Any]:
    """Inputs of an expert's matrices by their part; the router's weights come after both."""
    from torch.nn import functional

    gate, up = functional.linear(inputs, experts.gate_up_proj[expert]).chunk(2, -1)
    return {GATE_UP: inputs, DOWN_STACK: experts.act_fn(gate) * up}
