"""The memory that llama.cpp allocates for Gemma 3: llama-server, and programs that use the library as it comes.

Weights, cache and compute buffer are what llama.cpp's log says, to its 0.01 MiB (tests/vram/engines/test_llama_cpp.py).
The compute buffer is that of one backend; on CUDA the input embeddings, 4 bytes x ubatch x hidden size, lie in main
memory instead. Sources: llama.cpp's llama-context, llama-kv-cache-iswa and gemma3 graph.
"""

from __future__ import annotations

from functools import cache

from gemmaq.encodings import ENCODINGS
from gemmaq.errors import UsageError
from gemmaq.models.gemma3.config import TextConfig
from gemmaq.models.gemma3.vision import DEFAULT as SIGLIP
from gemmaq.vram import Engine, Estimate, Load, Model
from gemmaq.vram.engines.gemma3_graph import Batch, build
from gemmaq.vram.engines.ggml_allocator import buffer_bytes

KV_TYPES = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0")
QUANTS = ("bf16", "q8_0", "q6_k", "q5_k_m", "q4_k_m", "q4_0")
OPTIONS = frozenset(("ubatch", "flash_attention", "swa_full", "unified"))
CUDA_CONTEXT = 500_000_000
"""A CUDA context with its libraries, the round figure; drivers differ."""

_UBATCH = 512
_PAD = 256
_MOST_SLOTS = 256


def allocate(model: Model, load: Load, *, all_logits: bool = False, notes: tuple[str, ...] = ()) -> Estimate:
    """What a context of llama.cpp takes, with every layer on the accelerator.

    Args:
        model: to be run.
        load: how; `context` is n_ctx, which all sequences share.
        all_logits: whether logits of every token of a batch are kept, the library's default.
        notes: what to say of it.

    Raises:
        UsageError: llama.cpp refuses to make such a context.
    """
    config, slots = model.config, load.parallel
    unified = load.unified is not False
    if slots > _MOST_SLOTS:
        raise UsageError(f"llama.cpp takes {_MOST_SLOTS} sequences at a time at most, not {slots}", "lower --parallel")
    if ENCODINGS[load.kv_types[1]].bits and not load.flash_attention:
        raise UsageError(
            f"llama.cpp refuses a {load.kv_types[1]} V cache without flash attention",
            "turn flash attention on, or quantize K alone: --kv-type q8_0,f16",
        )
    ubatch = min(load.ubatch or _UBATCH, load.context)
    total = _padded(load.context, _PAD)
    streams = 1 if unified else slots
    cells = _padded(total // streams, _PAD)
    window = config.sliding_window * (slots if unified else 1) + min(load.ubatch or _UBATCH, total)
    local_cells = cells if load.swa_full else min(cells, _padded(window, _PAD))
    tokens = _padded(ubatch, slots)
    outputs = ubatch if all_logits else min(slots, ubatch)
    batch = Batch(tokens, outputs, streams, cells, local_cells, load.kv_types, load.flash_attention)
    row = config.num_key_value_heads * config.head_dim
    per_cell = streams * sum(ENCODINGS[kind].row_bytes(row) for kind in load.kv_types)
    return Estimate(
        weights=model.weights,
        kv_global=per_cell * cells * config.global_layers,
        kv_local=per_cell * local_cells * (config.num_hidden_layers - config.global_layers),
        compute=_compute(config, batch),
        vision_weights=model.vision if load.vision else 0,
        vision_compute=_image(load.flash_attention) if load.vision else 0,
        overhead=CUDA_CONTEXT,
        host=model.embedding + 4 * config.vocab_size * slots,
        notes=notes,
    )


@cache
def _compute(config: TextConfig, batch: Batch) -> int:
    return buffer_bytes(build(config, batch))


def _image(flash: bool) -> int:
    """Scratch of the vision tower for one image.

    Formulas that give the 121 and 1132 MiB reported for a real card (gguf-parser-go, issue 44): a layer's activations,
    and without flash attention the scores of all heads.
    """
    hidden, patches = SIGLIP.hidden_size, SIGLIP.patches
    if flash:
        return 4 * patches * (SIGLIP.intermediate_size + 3 * hidden)
    return 4 * patches * (6 * hidden + SIGLIP.num_attention_heads * patches)


def _server(model: Model, load: Load) -> Estimate:
    notes: tuple[str, ...] = ()
    if load.parallel == 1:
        notes = ("llama-server starts 4 slots that share one cache unless told -np 1: --parallel 4 for its default",)
    return allocate(model, load, notes=notes)


def _padded(value: int, to: int) -> int:
    return -(-value // to) * to


ENGINE = Engine(
    name="llama.cpp",
    title="llama.cpp",
    container="gguf",
    quants=QUANTS,
    kv_types=KV_TYPES,
    kv_default="f16",
    sees=False,
    options=OPTIONS,
    estimate=_server,
)
