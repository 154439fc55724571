"""The published size of EmbeddingGemma: 303 million weights, 308 with the two dense heads."""

from __future__ import annotations

from gemmaq.models.gemma3.config import TextConfig, pattern
from gemmaq.models.size import Size

SIZES: tuple[Size, ...] = (
    Size(
        family="embeddinggemma",
        name="embeddinggemma-300m",
        label="300M",
        nominal=0.3e9,
        towers=0,
        projector=0,
        config=TextConfig(
            hidden_size=768,
            intermediate_size=1152,
            num_hidden_layers=24,
            num_attention_heads=3,
            num_key_value_heads=1,
            vocab_size=262144,
            max_position_embeddings=2048,
            sliding_window=512,
            layer_pattern=pattern(24, 6),
        ),
        towers_config=None,
    ),
)
