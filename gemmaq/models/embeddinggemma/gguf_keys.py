"""GGUF metadata keys of EmbeddingGemma: those of Gemma 3 under another name.

The kind of pooling and the width of dense heads are no part of config.json; they come from the modules beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gemmaq.models.gemma3 import gguf_keys as causal
from gemmaq.models.gemma3.config import TextConfig
from gemmaq.models.gemma3.gguf_keys import NORM_SHIFT as NORM_SHIFT
from gemmaq.models.gemma3.gguf_keys import from_config as from_config
from gemmaq.models.gemma3.gguf_keys import generated as generated

ARCHITECTURE = "gemma-embedding"


def to_config(keys: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> TextConfig:
    """Config of a model from all keys of its file and the shapes of its tensors by GGUF name.

    Raises:
        InputError: A key is missing or of the wrong kind.
    """
    return causal.to_config(keys, shapes, architecture=ARCHITECTURE)
