"""vLLM: what it needs at least to serve that many requests of that length.

Its hybrid cache manager deals out pages of one size to groups of equally many layers. Source: vLLM's design notes on
the hybrid KV cache manager. Activations are calculated from the shapes of one batch, not measured; vLLM profiles them
on the card and then takes its whole share of the memory, `gpu_memory_utilization`, for the cache.
"""

from __future__ import annotations

import math

from gemmaq.models.gemma3.config import TextConfig
from gemmaq.models.gemma3.vision import DEFAULT as SIGLIP
from gemmaq.vram import Engine, Estimate, Load, Model
from gemmaq.vram.engines.llama_cpp import CUDA_CONTEXT

SHARE = 0.9
"""gpu_memory_utilization, its default."""

_PAGE_TOKENS = 16
_BATCH_TOKENS = 2048
_SEQUENCES = 256
_WIDTHS = {"bf16": 2, "f16": 2, "fp8": 1}


def _estimate(model: Model, load: Load) -> Estimate:
    config = model.config
    batched = load.ubatch or _BATCH_TOKENS
    kv_global, kv_local = (load.parallel * size for size in _cache(config, load, batched))
    return Estimate(
        weights=model.weights,
        kv_global=kv_global,
        kv_local=kv_local,
        compute=_activations(config, batched),
        vision_weights=model.vision if load.vision else 0,
        vision_compute=2 * SIGLIP.patches * (SIGLIP.intermediate_size + 3 * SIGLIP.hidden_size) if load.vision else 0,
        overhead=CUDA_CONTEXT,
        notes=(
            f"the least to serve; vLLM itself will take {SHARE:.0%} of the card for its cache (gpu_memory_utilization)",
            "its activations are calculated from shapes, not measured; CUDA graphs come on top",
        ),
    )


def _cache(config: TextConfig, load: Load, batched: int) -> tuple[int, int]:
    """Bytes of one request's pages in global and in sliding-window layers."""
    local_layers = config.num_hidden_layers - config.global_layers
    group = min(count for count in (config.global_layers, local_layers) if count)
    row = config.num_key_value_heads * config.head_dim
    page = group * _PAGE_TOKENS * row * sum(_WIDTHS[kind] for kind in load.kv_types)
    seen = min(config.sliding_window - 1 + batched, load.context)
    global_pages = math.ceil(config.global_layers / group) * math.ceil(load.context / _PAGE_TOKENS)
    local_pages = math.ceil(local_layers / group) * (math.ceil(seen / _PAGE_TOKENS) + 1)
    return global_pages * page, local_pages * page


def _activations(config: TextConfig, batched: int) -> int:
    """A batch at its widest, gate and up beside their product and the residual, and logits of all sequences in F32."""
    wide = 3 * config.intermediate_size + 2 * config.hidden_size
    return 2 * batched * wide + 4 * _SEQUENCES * config.vocab_size


ENGINE = Engine(
    name="vllm",
    title="vLLM",
    container="safetensors",
    quants=("bf16", "q8_0", "q4_0"),
    kv_types=tuple(_WIDTHS),
    kv_default="bf16",
    sees=True,
    options=frozenset(("ubatch",)),
    estimate=_estimate,
    share=SHARE,
)
