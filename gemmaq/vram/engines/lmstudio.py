"""LM Studio with its llama.cpp engine: it loads an mmproj file in the model's folder, and parallel requests share one
cache. Its MLX engine is `vram.engines.mlx`.
"""

from __future__ import annotations

from gemmaq.vram import Engine, Estimate, Load, Model
from gemmaq.vram.engines import llama_cpp


def _estimate(model: Model, load: Load) -> Estimate:
    notes = ("--parallel is LM Studio's Max Concurrent Predictions; its MLX engine is --engine mlx",)
    return llama_cpp.allocate(model, load, notes=notes)


ENGINE = Engine(
    name="lmstudio",
    title="LM Studio",
    container="gguf",
    quants=llama_cpp.QUANTS,
    kv_types=tuple(kind for kind in llama_cpp.KV_TYPES if kind != "bf16"),
    kv_default="f16",
    supports_vision=True,
    vision_by_default=True,
    options=frozenset(("ubatch", "flash_attention", "unified")),
    estimate=_estimate,
    encodes=True,
)
