"""The published sizes of Gemma 3n; parameter counts are those of transformers' own models."""

from __future__ import annotations

from gemmaq.models.gemma3n.config import TextConfig, pattern
from gemmaq.models.size import Size


def _size(label: str, nominal: float, *, layers: int, ffn: int, shared: int) -> Size:
    config = TextConfig(
        num_hidden_layers=layers,
        intermediate_size=(ffn,) * layers,
        num_kv_shared_layers=shared,
        activation_sparsity_pattern=(0.95,) * 10 + (0.0,) * (layers - 10),
        layer_pattern=pattern(layers),
    )
    return Size(
        family="gemma3n",
        name=f"gemma-3n-{label}",
        label=label,
        nominal=nominal,
        towers=0,
        projector=0,
        config=config,
        towers_config=None,
    )


SIZES: tuple[Size, ...] = (
    _size("E2B", 5e9, layers=30, ffn=8192, shared=10),
    _size("E4B", 8e9, layers=35, ffn=16384, shared=15),
)
