"""vLLM: the least memory that it needs to serve so many requests of such a length.

Its hybrid cache manager deals out pages of one size to groups of equally many layers; a page holds more tokens where
rows are narrower. Source: vLLM's design notes on the hybrid KV cache manager. Activations are calculated from the
shapes of one batch, not measured; vLLM profiles them on the card and then takes its whole share of the memory,
`gpu_memory_utilization`, for the cache.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from gemmaq.models.config import Layer, TextConfig
from gemmaq.vram import Engine, Estimate, Load, Model
from gemmaq.vram.engines.llama_cpp import CUDA_CONTEXT
from gemmaq.vram.engines.transformers import UNMEASURED

SHARE = 0.9
"""gpu_memory_utilization, its default."""

_PAGE_TOKENS = 16
_BATCH_TOKENS = 2048
_SEQUENCES = 256
_NOTES = (
    f"the least to serve; vLLM itself will take {SHARE:.0%} of the card for its cache (gpu_memory_utilization)",
    "its activations are calculated from shapes, not measured; CUDA graphs come on top",
)
_WIDTHS = {"bf16": 2, "f16": 2, "fp8": 1}


def _estimate(model: Model, load: Load) -> Estimate:
    batched = load.ubatch or _BATCH_TOKENS
    kv_global, kv_local = (load.parallel * size for size in _cache(model, load, batched))
    towers = [tower for tower in (model.sees, model.hears) if tower and load.vision]
    return Estimate(
        weights=model.weights,
        kv_global=kv_global,
        kv_local=kv_local,
        compute=_activations(model.config, batched),
        vision_weights=model.towers if load.vision else 0,
        vision_compute=max((2 * t.patches * (t.intermediate_size + 3 * t.hidden_size) for t in towers), default=0),
        overhead=CUDA_CONTEXT,
        notes=(*_NOTES, UNMEASURED) if model.config.normed_values else _NOTES,
    )


def _cache(model: Model, load: Load, batched: int) -> tuple[int, int]:
    """Bytes of one request's pages in global and in sliding-window layers."""
    everywhere, local = model.global_layers, model.local_layers
    group = min(len(layers) for layers in (everywhere, local) if layers)
    numbers = _PAGE_TOKENS * max(layer.kv_width for layer in model.config.layers)
    page = group * numbers * sum(_WIDTHS[kind] for kind in load.kv_types)
    window = max((layer.window or 0 for layer in local), default=0)

    def pages(layers: Sequence[Layer], tokens: int, *, spare: int) -> int:
        if not layers:
            return 0
        page_tokens = numbers // max(layer.kv_width for layer in layers)
        return math.ceil(len(layers) / group) * (math.ceil(tokens / page_tokens) + spare)

    return (
        page * pages(everywhere, load.context, spare=0),
        page * pages(local, min(window - 1 + batched, load.context), spare=1),
    )


def _activations(config: TextConfig, batched: int) -> int:
    """Bytes of a batch at its widest: gate, up and their product, the residual, and logits of all sequences in F32."""
    wide = 3 * max(layer.ffn for layer in config.layers) + 2 * config.hidden_size
    return 2 * batched * wide + 4 * _SEQUENCES * config.vocab_size


ENGINE = Engine(
    name="vllm",
    title="vLLM",
    container="safetensors",
    quants=("bf16", "q8_0", "q4_0"),
    kv_types=tuple(_WIDTHS),
    kv_default="bf16",
    supports_vision=True,
    vision_by_default=True,
    options=frozenset(("ubatch",)),
    estimate=_estimate,
    share=SHARE,
)
