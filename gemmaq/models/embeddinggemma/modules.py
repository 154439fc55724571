"""Layers of EmbeddingGemma in transformers: those of Gemma 3 with masks to both sides. Functions import torch."""

from __future__ import annotations

from typing import Any

from gemmaq.models.embeddinggemma.config import to_hf
from gemmaq.models.gemma3.config import TextConfig
from gemmaq.models.gemma3.modules import attention_kinds as attention_kinds
from gemmaq.models.gemma3.modules import decoder_layer as decoder_layer
from gemmaq.models.gemma3.modules import embedding_scale as embedding_scale
from gemmaq.models.gemma3.modules import expert_inputs as expert_inputs
from gemmaq.models.gemma3.modules import layer_inputs as layer_inputs
from gemmaq.models.gemma3.modules import rms_norm as rms_norm
from gemmaq.models.gemma3.modules import rotary_embedding as rotary_embedding
from gemmaq.models.gemma3.modules import run as run


def hf_config(config: TextConfig) -> Any:
    """The configuration object of transformers, for float32 and fused attention."""
    from transformers import Gemma3TextConfig

    result = Gemma3TextConfig(**to_hf(config, "float32"))
    result._attn_implementation = "sdpa"
    return result


def attention_mask(hf_config: Any, kind: str, hidden: Any, positions: Any) -> Any:
    """Mask of a kind of attention, bool [1, 1, length, length]; hidden f32 [batch, length, hidden], no padding.

    The window of the configuration object counts the tokens to one side, the token itself included.
    """
    import torch

    length = hidden.shape[1]
    at = torch.arange(length, device=hidden.device)
    reach = hf_config.sliding_window if kind == "sliding_attention" else length
    return ((at[:, None] - at).abs() < reach)[None, None]
