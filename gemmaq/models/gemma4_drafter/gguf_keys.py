"""GGUF metadata keys of drafters of Gemma 4: those of Gemma 4 under another name, and the width of the target.

Source: llama.cpp's converter; `nextn_predict_layers` counts the layers, since all of them predict tokens ahead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gemmaq.errors import InputError
from gemmaq.models.gemma4 import gguf_keys as causal
from gemmaq.models.gemma4.config import TextConfig
from gemmaq.models.gemma4.gguf_keys import NORM_SHIFT as NORM_SHIFT
from gemmaq.models.gemma4.gguf_keys import generated as generated
from gemmaq.models.gemma4_drafter.hf_config import of_drafter
from gemmaq.models.hf_values import is_count

ARCHITECTURE = "gemma4-assistant"
_BACKBONE, _SHARED, _KV_HEADS = "embedding_length_out", "attention.shared_kv_layers", "attention.head_count_kv"


def from_config(config: TextConfig) -> dict[str, Any]:
    """Keys of a drafter, without the architecture as prefix."""
    ahead = {_BACKBONE: config.backbone_hidden_size, "nextn_predict_layers": config.num_hidden_layers}
    return causal.from_config(config) | ahead


def to_config(keys: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> TextConfig:
    """Config of a drafter from all keys of its file and the shapes of its tensors by GGUF name.

    Raises:
        InputError: A key is missing or of the wrong kind.
    """
    own = {**keys, f"{ARCHITECTURE}.{_SHARED}": 0}
    config = replace(causal.to_config(own, shapes, architecture=ARCHITECTURE), hidden_size_per_layer_input=0)
    backbone = keys.get(f"{ARCHITECTURE}.{_BACKBONE}")
    if backbone is None or not is_count(backbone):
        raise InputError(f"GGUF key {ARCHITECTURE}.{_BACKBONE} is {backbone!r:.60}")
    if is_count(keys.get(f"{ARCHITECTURE}.{_KV_HEADS}")):
        config = replace(config, attention_k_eq_v=False, num_global_key_value_heads=None)
    return of_drafter(config, backbone)
