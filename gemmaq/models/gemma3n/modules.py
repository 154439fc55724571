"""Gemma 3n is not run: its layers take and give four streams at once, which needs a decoder of its own.

Whoever wants to run it asks for the configuration first and is told so; what else rooms ask is as in Gemma 4.
"""

from __future__ import annotations

from typing import Any

from gemmaq.errors import UsageError
from gemmaq.models.gemma3n.config import TextConfig
from gemmaq.models.gemma4.modules import attention_kinds as attention_kinds
from gemmaq.models.gemma4.modules import attention_mask as attention_mask
from gemmaq.models.gemma4.modules import decoder_layer as decoder_layer
from gemmaq.models.gemma4.modules import embedding_scale as embedding_scale
from gemmaq.models.gemma4.modules import expert_inputs as expert_inputs
from gemmaq.models.gemma4.modules import layer_inputs as layer_inputs
from gemmaq.models.gemma4.modules import rms_norm as rms_norm
from gemmaq.models.gemma4.modules import rotary_embedding as rotary_embedding
from gemmaq.models.gemma4.modules import run as run


def hf_config(config: TextConfig) -> Any:
    """Refuse to run the model.

    Raises:
        UsageError: Always.
    """
    raise UsageError(
        f"gemmaq does not run Gemma 3n: its layers work on {config.streams} streams at once",
        "calibrated methods, evaluate and qat run models; --method auto, nearest and lattice convert Gemma 3n",
    )
