"""config.json of EmbeddingGemma: that of a bare Gemma 3 text model with bidirectional attention.

`sliding_window` is the file's own number, tokens on both sides together. transformers halves it in memory and doubles
it back when it saves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gemmaq.models.gemma3 import config as causal
from gemmaq.models.gemma3.config import KEYS as KEYS
from gemmaq.models.gemma3.config import NESTED as NESTED
from gemmaq.models.gemma3.config import TEXT_MODEL_TYPE as TEXT_MODEL_TYPE
from gemmaq.models.gemma3.config import TextConfig
from gemmaq.models.gemma3.config import check_mlx as check_mlx
from gemmaq.models.gemma3.config import nested as nested
from gemmaq.models.gemma3.config import with_vocabulary as with_vocabulary

BARE = "Gemma3TextModel"
MODEL_TYPE = TEXT_MODEL_TYPE
ARCHITECTURES = (BARE, TEXT_MODEL_TYPE)
"""Class names and model types of config.json that are read."""
MARKS = ("use_bidirectional_attention",)
"""Flags that set it apart from Gemma 3."""


def from_hf(config: Mapping[str, Any]) -> TextConfig:
    """Read a config.json.

    Raises:
        InputError: A value is of the wrong kind, or no runtime can run this variant.
    """
    return causal.from_hf(config, bidirectional=True)


def to_hf(config: TextConfig, dtype: str) -> dict[str, Any]:
    """config.json of a folder; dtype is torch's name of the stored weights."""
    document = causal.to_hf(config, dtype) | {"architectures": [BARE], "use_bidirectional_attention": True}
    return dict(sorted(document.items()))
