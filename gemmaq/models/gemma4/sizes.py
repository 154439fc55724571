"""The published sizes of Gemma 4.

Dimensions are those of Google's conversion script; parameter counts agree with what llama.cpp prints for published
files.
"""

from __future__ import annotations

import math

from gemmaq.models.gemma4 import tower_names
from gemmaq.models.gemma4.config import TextConfig, pattern
from gemmaq.models.gemma4.towers_config import AudioTower, Patches, TowersConfig, VisionTower, Waves
from gemmaq.models.size import Size

_SOFTCAP = 30.0


def _small(layers: int, hidden: int, ffn: int, *, kv_heads: int, period: int, shared: int, wide: bool) -> TextConfig:
    """E2B and E4B: layer embeddings, and layers at the end that share keys and values."""
    return TextConfig(
        hidden_size=hidden,
        intermediate_size=ffn,
        num_hidden_layers=layers,
        num_attention_heads=8,
        num_key_value_heads=kv_heads,
        num_kv_shared_layers=shared,
        use_double_wide_mlp=wide,
        layer_pattern=pattern(layers, period),
        final_logit_softcapping=_SOFTCAP,
    )


def _large(
    layers: int, hidden: int, ffn: int, *, heads: int, kv_heads: int, global_heads: int, experts: bool = False
) -> TextConfig:
    """12B, 26B-A4B and 31B: keys serve as values in global layers."""
    return TextConfig(
        hidden_size=hidden,
        intermediate_size=ffn,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        num_global_key_value_heads=global_heads,
        attention_k_eq_v=True,
        hidden_size_per_layer_input=0,
        enable_moe_block=experts,
        num_experts=128 if experts else None,
        top_k_experts=8 if experts else None,
        moe_intermediate_size=704 if experts else None,
        max_position_embeddings=262144,
        sliding_window=1024,
        layer_pattern=pattern(layers, 6),
        final_logit_softcapping=_SOFTCAP,
    )


_VISION_AND_AUDIO = TowersConfig(VisionTower(use_clipped_linears=True), AudioTower(), bidirectional=False)
_UNIFIED = TowersConfig(Patches(), Waves(), bidirectional=True)
_VISION = TowersConfig(
    VisionTower(
        hidden_size=1152, intermediate_size=4304, num_hidden_layers=27, num_attention_heads=16, standardize=True
    ),
    bidirectional=True,
)


def _size(label: str, nominal: float, config: TextConfig, towers: TowersConfig) -> Size:
    weights = {name: math.prod(shape) for name, shape in tower_names.shapes(towers, config.hidden_size)}
    projector = sum(weights.get(name, 0) for name in tower_names.PROJECTIONS)
    return Size(
        family="gemma4",
        name=f"gemma-4-{label}",
        label=label,
        nominal=nominal,
        towers=sum(weights.values()) - projector,
        projector=projector,
        config=config,
        towers_config=towers,
    )


SIZES: tuple[Size, ...] = (
    _size("E2B", 5.1e9, _small(35, 1536, 6144, kv_heads=1, period=5, shared=20, wide=True), _VISION_AND_AUDIO),
    _size("E4B", 8e9, _small(42, 2560, 10240, kv_heads=2, period=6, shared=18, wide=False), _VISION_AND_AUDIO),
    _size("12B", 12e9, _large(48, 3840, 15360, heads=16, kv_heads=8, global_heads=1), _UNIFIED),
    _size("26B-A4B", 26e9, _large(30, 2816, 2112, heads=16, kv_heads=8, global_heads=2, experts=True), _VISION),
    _size("31B", 31e9, _large(60, 5376, 21504, heads=32, kv_heads=16, global_heads=4), _VISION),
)
