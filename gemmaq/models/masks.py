"""Masks of attention in transformers, the same for every family."""

from __future__ import annotations

import inspect
from typing import Any


def attention_mask(hf_config: Any, kind: str, hidden: Any, positions: Any) -> Any:
    """Mask of a kind of attention for sequences without padding, hidden f32 [batch, length, hidden]."""
    from transformers.masking_utils import create_causal_mask, create_sliding_window_causal_mask

    make = create_sliding_window_causal_mask if kind == "sliding_attention" else create_causal_mask
    cache = "cache" if "cache" in inspect.signature(make).parameters else "past_key_values"  # renamed in 5.x
    return make(config=hf_config, inputs_embeds=hidden, attention_mask=None, position_ids=positions, **{cache: None})
