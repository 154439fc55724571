"""config.json of drafters of Gemma 4: a Gemma 4 text model whose layers all share, and the width of the target.

The centroids, by which transformers finds the tokens worth scoring, are no part of the model that is written: llama.cpp
scores all tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gemmaq.errors import InputError
from gemmaq.models import hf_values
from gemmaq.models.gemma4 import hf_config as causal
from gemmaq.models.gemma4.config import TextConfig
from gemmaq.models.gemma4.hf_config import KEYS as KEYS
from gemmaq.models.gemma4.hf_config import TEXT_MODEL_TYPE as TEXT_MODEL_TYPE
from gemmaq.models.gemma4.hf_config import check_mlx as check_mlx
from gemmaq.models.gemma4.hf_config import with_vocabulary as with_vocabulary

CLASS = "Gemma4AssistantForCausalLM"
MODEL_TYPE = "gemma4_assistant"
NESTED = False
ARCHITECTURES = (CLASS, "Gemma4UnifiedAssistantForCausalLM", MODEL_TYPE, "gemma4_unified_assistant")
"""Class names and model types of config.json that are read."""

_ABSENT = ("hidden_size_per_layer_input", "vocab_size_per_layer_input", "enable_moe_block", "use_double_wide_mlp")


def from_hf(config: Mapping[str, Any]) -> TextConfig:
    """Read a config.json.

    Raises:
        InputError: A value is of the wrong kind, or no runtime can run this variant.
    """
    text = hf_values.text_side(config)
    for name in _ABSENT:
        if text.get(name):
            raise InputError(f"config.json: {name} is {text[name]!r:.60}, which no drafter has")
    if not hf_values.is_count(config.get("backbone_hidden_size")):
        raise InputError(f"config.json: backbone_hidden_size is {config.get('backbone_hidden_size')!r:.60}")
    layers = text.get("num_hidden_layers", TextConfig().num_hidden_layers)
    fixed = {"hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": None, "num_kv_shared_layers": layers}
    return causal.from_hf({**config, "text_config": text | fixed})


def to_hf(config: TextConfig, dtype: str) -> dict[str, Any]:
    """config.json of a folder; dtype is torch's name of the stored weights."""
    document = causal.to_hf(config, dtype)
    text = {key: value for key, value in document.items() if key not in ("architectures", "torch_dtype")}
    return {
        "architectures": [CLASS],
        "model_type": MODEL_TYPE,
        "backbone_hidden_size": config.backbone_hidden_size,
        "text_config": {**text, "vocab_size_per_layer_input": 0},
        "tie_word_embeddings": True,
        "torch_dtype": dtype,
        "use_ordered_embeddings": False,
    }


def nested(document: dict[str, Any]) -> dict[str, Any]:
    """The document itself: drafters have one layout."""
    return document


def of_drafter(config: TextConfig, backbone: int) -> TextConfig:
    """A Gemma 4 text config without layer embeddings, as that of a drafter whose target has this width."""
    return replace(config, num_kv_shared_layers=config.num_hidden_layers, backbone_hidden_size=backbone)
