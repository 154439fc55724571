"""Memory that llama.cpp allocates: llama-server, and programs that use the library with its defaults.

Weights, cache and compute buffer are what llama.cpp's log says, to its 0.01 MiB (tests/vram/engines/test_llama_cpp.py).
The compute buffer is that of one backend; on CUDA the input embeddings, 4 bytes x ubatch x hidden size, lie in main
memory instead. Sources: llama.cpp's llama-context, llama-kv-cache, llama-kv-cache-iswa and graphs of dense models.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from gemmaq.encodings import ENCODINGS
from gemmaq.errors import UsageError
from gemmaq.models.config import Layer, TextConfig
from gemmaq.models.vision_config import VisionConfig
from gemmaq.vram import Engine, Estimate, Load, Model
from gemmaq.vram.engines.dense_graph import Batch, build
from gemmaq.vram.engines.ggml_allocator import buffer_bytes

KV_TYPES = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0")
QUANTS = ("bf16", "q8_0", "q6_k", "q5_k_m", "q4_k_m", "q4_0")
OPTIONS = frozenset(("ubatch", "flash_attention", "swa_full", "unified"))
CUDA_CONTEXT = 500_000_000
"""Bytes of a CUDA context with its libraries, a round figure; drivers differ."""

_UBATCH = 512
_PAD = 256
_MOST_SLOTS = 256


def allocate(model: Model, load: Load, *, all_logits: bool = False, notes: tuple[str, ...] = ()) -> Estimate:
    """Memory of a llama.cpp context with every layer on the accelerator.

    Args:
        model: Model to run.
        load: Settings; `context` is n_ctx, which all sequences share.
        all_logits: Whether logits of every token of a batch are stored, the library's default.
        notes: Notes of the estimate.

    Raises:
        UsageError: llama.cpp refuses to make such a context.
    """
    _check(load)
    batch = _batch(model, load, all_logits=all_logits)
    widest = 0 if load.flash_attention else max(layer.kv_width for layer in model.config.layers)
    tower = model.vision_config if load.vision else None
    return Estimate(
        weights=model.weights,
        kv_global=batch.streams * batch.cells * _row_bytes(model.global_layers, load.kv_types, widest),
        kv_local=batch.streams * batch.local_cells * _row_bytes(model.local_layers, load.kv_types, widest),
        compute=_compute(model.config, batch),
        vision_weights=model.vision if tower else 0,
        vision_compute=_image(tower, load.flash_attention) if tower else 0,
        overhead=CUDA_CONTEXT,
        host=model.embedding + 4 * model.config.vocab_size * load.parallel,
        notes=notes,
    )


def _check(load: Load) -> None:
    if load.parallel > _MOST_SLOTS:
        raise UsageError(
            f"llama.cpp runs at most {_MOST_SLOTS} sequences at a time, not {load.parallel}", "lower --parallel"
        )
    if ENCODINGS[load.kv_types[1]].bits and not load.flash_attention:
        raise UsageError(
            f"llama.cpp refuses a {load.kv_types[1]} V cache without flash attention",
            "turn flash attention on, or quantize K alone: --kv-type q8_0,f16",
        )


def _batch(model: Model, load: Load, *, all_logits: bool) -> Batch:
    """Largest batch of a context, and the room of its caches."""
    slots = load.parallel
    unified = load.unified is not False
    ubatch = min(load.ubatch or _UBATCH, load.context)
    total = _padded(load.context, _PAD)
    streams = 1 if unified else slots
    cells = _padded(total // streams, _PAD)
    longest = max((layer.window or 0 for layer in model.local_layers), default=0)
    window = longest * (slots if unified else 1) + min(load.ubatch or _UBATCH, total)
    return Batch(
        tokens=_padded(ubatch, slots),
        outputs=ubatch if all_logits else min(slots, ubatch),
        streams=streams,
        cells=cells,
        local_cells=cells if load.swa_full else min(cells, _padded(window, _PAD)),
        kv_types=load.kv_types,
        flash=load.flash_attention,
    )


def _row_bytes(layers: Sequence[Layer], kv_types: tuple[str, str], widest: int) -> int:
    """Bytes that a token takes in the caches of these layers.

    Args:
        layers: Layers whose caches are counted.
        kv_types: Types of the K cache and of the V cache.
        widest: Width of V in every layer's cache at least: that of the widest layer where V is stored transposed.
    """
    k_type, v_type = (ENCODINGS[kind] for kind in kv_types)
    return sum(k_type.row_bytes(layer.kv_width) + v_type.row_bytes(max(layer.kv_width, widest)) for layer in layers)


@cache
def _compute(config: TextConfig, batch: Batch) -> int:
    return buffer_bytes(build(config, batch))


def _image(tower: VisionConfig, flash: bool) -> int:
    """Scratch memory of the vision tower for one image.

    Formulas that give the 121 and 1132 MiB reported for a real card (gguf-parser-go, issue 44): a layer's activations,
    and without flash attention the scores of all heads.
    """
    hidden, patches = tower.hidden_size, tower.patches
    if flash:
        return 4 * patches * (tower.intermediate_size + 3 * hidden)
    return 4 * patches * (6 * hidden + tower.num_attention_heads * patches)


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
    supports_vision=True,
    vision_by_default=False,
    options=OPTIONS,
    estimate=_server,
)
