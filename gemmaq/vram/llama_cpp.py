"""The memory llama.cpp's server allocates for a Gemma 3 text model, one sequence, flash attention on.

Weights and cache are exact. The compute buffer's formula was fitted to the allocator's log and is within 0.1 MiB.
The driver's own context (about 0.5 GB on CUDA) is not llama.cpp's and not counted.
"""

from __future__ import annotations

from dataclasses import dataclass

from gemmaq.encodings import ENCODINGS
from gemmaq.errors import UsageError
from gemmaq.gemma.config import TextConfig

KV_TYPES = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0")
_UBATCH = 512
_PAD = 256


@dataclass(frozen=True, slots=True)
class Estimate:
    """Bytes a running model takes.

    Attributes:
        weights: the tensors.
        kv_global: cache of the layers that see the whole context.
        kv_local: cache of the sliding-window layers.
        compute: scratch for one batch.
    """

    weights: int
    kv_global: int
    kv_local: int
    compute: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.weights + self.kv_global + self.kv_local + self.compute


def estimate(config: TextConfig, weights: int, context: int, kv_type: str) -> Estimate:
    """Memory at a context of that many tokens.

    Args:
        config: of the model.
        weights: bytes of its tensors, see `vram.weights`.
        context: tokens.
        kv_type: type of the cache, one of KV_TYPES.

    Raises:
        UsageError: the context or the type is impossible.
    """
    if not 1 <= context <= config.max_position_embeddings:
        raise UsageError(
            f"a context of {context} tokens is impossible", f"this model takes 1 to {config.max_position_embeddings}"
        )
    if kv_type not in KV_TYPES:
        raise UsageError(f"unknown KV cache type {kv_type!r}", f"known types: {', '.join(KV_TYPES)}")
    cells = _padded(context, _PAD)
    local_cells = min(cells, _padded(config.sliding_window + _UBATCH, _PAD))
    row = config.num_key_value_heads * config.head_dim
    per_cell = 2 * ENCODINGS[kv_type].row_bytes(row)
    local_layers = config.num_hidden_layers - config.global_layers
    tokens = min(_UBATCH, cells)
    wide = 3 * config.intermediate_size + 3 * config.hidden_size + config.num_attention_heads * config.head_dim + 10
    return Estimate(
        weights=weights,
        kv_global=per_cell * cells * config.global_layers,
        kv_local=per_cell * local_cells * local_layers,
        compute=2 * tokens * (cells + local_cells) + 4 * tokens * wide,
    )


def _padded(value: int, to: int) -> int:
    return -(-value // to) * to
