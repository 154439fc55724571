"""Programs that use llama.cpp as a library and leave its defaults as they are.

The library stores logits of a whole batch and keeps the whole context in every sliding-window layer; llama-server and
llama-cli turn both off. Source: llama_context_default_params.
"""

from __future__ import annotations

from dataclasses import replace

from gemmaq.vram import Engine, Estimate, Load, Model
from gemmaq.vram.engines import llama_cpp


def _estimate(model: Model, load: Load) -> Estimate:
    swa_full = load.swa_full is not False
    notes = ("the library's own defaults: swa_full unless --no-swa-full, logits of the whole batch",)
    return llama_cpp.allocate(model, replace(load, swa_full=swa_full), all_logits=True, notes=notes)


ENGINE = Engine(
    name="libllama",
    title="llama.cpp as a library",
    container="gguf",
    quants=llama_cpp.QUANTS,
    kv_types=llama_cpp.KV_TYPES,
    kv_default="f16",
    supports_vision=True,
    vision_by_default=False,
    options=llama_cpp.OPTIONS,
    estimate=_estimate,
    encodes=True,
)
