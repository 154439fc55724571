"""Ollama: llama-server with settings of its own, towers and a drafter loaded with the model.

Each parallel request has a whole context. Source: Ollama's llama-server runner (August 2026), which passes
-c num_ctx x num_parallel, -np num_parallel, -b and -ub num_batch (512), and the type of OLLAMA_KV_CACHE_TYPE; a drafter
proposes draft_num_predict (4) tokens.
"""

from __future__ import annotations

from dataclasses import replace

from gemmaq.errors import UsageError
from gemmaq.vram import Engine, Estimate, Load, Model
from gemmaq.vram.engines import llama_cpp

_AHEAD = 4


def _estimate(model: Model, load: Load) -> Estimate:
    if load.kv_types[0] != load.kv_types[1]:
        raise UsageError("Ollama has one type for K and V", "give --kv-type one type")
    notes = ("Ollama's default context is 4096 below 23 GiB of VRAM, 32768 below 47 GiB, 262144 above",)
    served = replace(load, context=load.context * load.parallel, unified=False)
    return llama_cpp.allocate(model, served, ahead=_AHEAD, notes=notes)


ENGINE = Engine(
    name="ollama",
    title="Ollama",
    container="gguf",
    quants=llama_cpp.QUANTS,
    kv_types=("f16", "q8_0", "q4_0"),
    kv_default="f16",
    supports_vision=True,
    vision_by_default=True,
    options=frozenset(("ubatch", "flash_attention")),
    estimate=_estimate,
    encodes=True,
    drafts=True,
    drafts_by_default=True,
)
