"""The published drafters of Gemma 4, one for each size.

Dimensions of the larger ones are those of published GGUF files. Those of E2B's and E4B's follow from the parameters
that their cards give, 78 and 79 million.
"""

from __future__ import annotations

from dataclasses import replace

from gemmaq.models.gemma4.config import TextConfig, pattern
from gemmaq.models.gemma4.sizes import SIZES as TARGETS
from gemmaq.models.gemma4_drafter.hf_config import of_drafter
from gemmaq.models.size import Size

_LAYERS = 4


def _drafter(target: TextConfig, *, hidden: int, ffn: int, heads: int) -> TextConfig:
    """A drafter with the keys, windows and vocabulary of its target."""
    body = replace(
        target,
        hidden_size=hidden,
        intermediate_size=ffn,
        num_hidden_layers=_LAYERS,
        num_attention_heads=heads,
        hidden_size_per_layer_input=0,
        use_double_wide_mlp=False,
        enable_moe_block=False,
        num_experts=None,
        top_k_experts=None,
        moe_intermediate_size=None,
        layer_pattern=pattern(_LAYERS, _LAYERS),
    )
    return of_drafter(body, target.hidden_size)


def _size(target: Size) -> Size:
    label = f"{target.label}-it-assistant"
    config = target.config
    assert isinstance(config, TextConfig)
    dimensions = {"hidden": 1024, "ffn": 8192, "heads": config.num_attention_heads}
    if config.layer_embedding:
        dimensions = {"hidden": 256, "ffn": 2048, "heads": 4}
    drafter = _drafter(config, **dimensions)
    return Size(
        family="gemma4_drafter",
        name=f"gemma-4-{label}",
        label=label,
        nominal=drafter.parameters,
        towers=0,
        projector=0,
        config=drafter,
        towers_config=None,
    )


SIZES: tuple[Size, ...] = tuple(map(_size, TARGETS))
