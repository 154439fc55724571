"""The published sizes of Gemma 3.

Dimensions agree with the published config files, and their sums with the published parameter counts.
"""

from __future__ import annotations

from dataclasses import replace

from gemmaq.models.gemma3 import towers
from gemmaq.models.gemma3.config import TextConfig, pattern
from gemmaq.models.size import Size


def _config(layers: int, hidden: int, ffn: int, heads: int, kv_heads: int, small: bool) -> TextConfig:
    return TextConfig(
        hidden_size=hidden,
        intermediate_size=ffn,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        vocab_size=262144 if small else 262208,
        max_position_embeddings=32768 if small else 131072,
        sliding_window=512 if small else 1024,
        rope_factor=1.0 if small else 8.0,
        layer_pattern=pattern(layers, 6),
    )


_ALIASES = {
    "270M": ("functiongemma-270m",),
    "4B": ("medgemma-4b", "medgemma-1.5-4b", "translategemma-4b", "shieldgemma-2-4b"),
    "12B": ("translategemma-12b",),
    "27B": ("medgemma-27b", "translategemma-27b"),
}
"""Size -> models of the same dimensions with other training."""


def _size(label: str, nominal: float, config: TextConfig, *, with_vision: bool) -> Size:
    return Size(
        family="gemma3",
        name=f"gemma-3-{label.lower()}",
        label=label,
        nominal=nominal,
        towers=towers.TOWER_PARAMETERS if with_vision else 0,
        projector=towers.projector_parameters(config.hidden_size) if with_vision else 0,
        config=config,
        towers_config=towers.DEFAULT if with_vision else None,
        aliases=_ALIASES.get(label, ()),
    )


SIZES: tuple[Size, ...] = (
    _size("270M", 0.27e9, _config(18, 640, 2048, 4, 1, small=True), with_vision=False),
    _size("1B", 1e9, _config(26, 1152, 6912, 4, 1, small=True), with_vision=False),
    _size("4B", 4e9, _config(34, 2560, 10240, 8, 4, small=False), with_vision=True),
    _size("12B", 12e9, _config(48, 3840, 15360, 16, 8, small=False), with_vision=True),
    _size(
        "27B",
        27e9,
        replace(_config(62, 5376, 21504, 32, 16, small=False), head_dim=128, query_pre_attn_scalar=168),
        with_vision=True,
    ),
)
