"""Memory that llama.cpp allocates: llama-server, and programs that use the library with its defaults.

Weights, cache and compute buffer are what llama.cpp's log says, to its 0.01 MiB (tests/vram/engines/test_llama_cpp.py).
Builds differ: compute buffers of b11549 are up to 21 MiB off those of v0.5.0, which these are, for models with branches
or streams, in a server at 512 tokens a batch. The compute buffer is that of one backend. With every layer on the
accelerator, tables that are only looked up stay in main memory: the embeddings of every layer, and a copy of the token
embedding. Sources: llama.cpp v0.5.0's llama-context, llama-kv-cache, llama-kv-cache-iswa and graphs of the models; main
memory by its Vulkan backend's log.

A drafter's buffer is the same in both builds; on a Vulkan device, what it takes of the target's states comes on top,
7.5 MiB at most for 12B. It has no cache of its own: it reads its target's. Buffers of towers are those that mtmd of
b11549 reserves, but for towers that make all images one size: theirs are a formula.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from types import ModuleType

from gemmaq.encodings import ENCODINGS
from gemmaq.errors import UsageError
from gemmaq.models.config import Layer, TextConfig
from gemmaq.models.towers_config import Encoder
from gemmaq.vram import Engine, Estimate, Load, Model, kv_costs
from gemmaq.vram.engines import branched_graph, dense_graph, drafter_graph, encoder_graph, stream_graph, tower_graph
from gemmaq.vram.engines.cached_attention import Batch
from gemmaq.vram.engines.card_graph import Share, of_card
from gemmaq.vram.engines.ggml_allocator import buffer_bytes

KV_TYPES = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")
QUANTS = ("bf16", "q8_0", "q6_k", "q5_k_m", "q4_k_m", "q4_0")
OPTIONS = frozenset(("ubatch", "flash_attention", "swa_full", "unified"))
CUDA_CONTEXT = 500_000_000
"""Bytes of a CUDA context with its libraries, a round figure; drivers differ."""

_F32 = 4
_BATCH = 2048
"""Tokens of a batch, whose states a drafter may start from."""
_UBATCH = 512
"""Tokens of it that are computed at a time."""
_PAD = 256
_MOST_SLOTS = 256
_FRAMES = 3000
"""Frames of sound that mtmd prepares for."""


def allocate(
    model: Model, load: Load, *, all_logits: bool = False, ahead: int = 3, notes: tuple[str, ...] = ()
) -> Estimate:
    """Memory of a llama.cpp context with every layer on the accelerator, and of the one of a drafter.

    Args:
        model: Model to run.
        load: Settings; `context` is n_ctx, which all sequences share.
        all_logits: Whether logits of every token of a batch are stored, the library's default.
        ahead: Tokens that a drafter proposes at a time, of which the model then computes the logits.
        notes: Notes of the estimate.

    Raises:
        UsageError: llama.cpp refuses to make such a context.
    """
    _check(load)
    outputs = load.parallel * (1 if model.drafter is None else 1 + ahead)
    batch = _texts(load) if model.encoder else _batch(model, load, outputs, all_logits=all_logits)
    widest = 0 if load.flash_attention else max(layer.kv_width for layer in model.config.layers)
    estimate = Estimate(
        weights=model.weights - model.layer_table,
        kv_global=batch.streams * batch.cells * _row_bytes(model.global_layers, load.kv_types, widest),
        kv_local=batch.streams * batch.local_cells * _row_bytes(model.local_layers, load.kv_types, widest),
        compute=_compute(_graph(model), model.config, batch),
        vision_weights=model.towers if load.vision else 0,
        vision_compute=_media(model, load.flash_attention) if load.vision else 0,
        overhead=CUDA_CONTEXT,
        host=model.embedding + model.layer_table + output_bytes(model, outputs) + _host_compute(model.config, batch),
        notes=(*notes, *_notes(model, load)),
        kv_cost=None if model.encoder else kv_costs.cost(load.kv_types),
    )
    if model.drafter is None:
        return estimate
    batch = _batch(model, load, load.parallel, all_logits=False)
    return _with_drafter(estimate, model.drafter, model.config.hidden_size, batch)


def layer_caches(model: Model, load: Load) -> tuple[int, ...]:
    """Bytes of the cache of every layer, 0 where a layer reads that of another."""
    batch = _batch(model, load, load.parallel, all_logits=False)
    widest = 0 if load.flash_attention else max(layer.kv_width for layer in model.config.layers)
    return tuple(
        batch.streams
        * (batch.local_cells if layer.is_local else batch.cells)
        * (_row_bytes((layer,), load.kv_types, widest) if layer.kv_from is None else 0)
        for layer in (() if model.encoder else model.config.layers)
    )


def card_compute(model: Model, load: Load, share: Share) -> int:
    """Bytes of the compute buffer of one card, of several or where a part of the model lies in main memory.

    Against dry runs with a Vulkan device it is within 1 % of all bytes on the card, but where the cache has 131,072
    tokens in eight bits and lies in main memory in part, at times 5 to 8 % (tests/benchmarks/placement.py).
    """
    return _card_compute(_graph(model), model.config, _batch(model, load, load.parallel, all_logits=False), share)


def shared_inputs(model: Model, load: Load) -> tuple[int, int, int]:
    """Bytes of the masks of a batch, of the states of its tokens, and of what is looked up for every layer."""
    batch, config = _batch(model, load, load.parallel, all_logits=False), model.config
    width = config.num_hidden_layers * config.layer_embedding
    return _masks(batch), _F32 * batch.tokens * config.hidden_size, _F32 * batch.tokens * width


def _with_drafter(estimate: Estimate, drafter: Model, backbone: int, batch: Batch) -> Estimate:
    """Estimate of a model with what its drafter takes: in main memory a copy of its embedding, scratch and states."""
    states = _F32 * backbone * (_BATCH + batch.outputs)
    scratch = _masks(batch) + 2 * _F32 * batch.tokens * backbone
    return replace(
        estimate,
        draft_weights=drafter.weights,
        draft_compute=_draft_compute(drafter.config, batch, backbone),
        host=estimate.host + drafter.embedding + output_bytes(drafter, batch.outputs) + states + scratch,
    )


def _media(model: Model, flash: bool) -> int:
    """Bytes of the buffers for the largest image and for a sound."""
    hidden = model.config.hidden_size
    image = _image(model.sees, hidden, flash) if model.sees else 0
    return image + (buffer_bytes(tower_graph.sound(model.hears, hidden, _FRAMES)) if model.hears else 0)


def _notes(model: Model, load: Load) -> Iterator[str]:
    tower = model.sees if load.vision else None
    if tower is not None and tower.most_tokens:
        heard = f", and of a sound of {_FRAMES >> len(model.hears.channels)} tokens" if model.hears else ""
        yield f"the towers' scratch memory is that of an image of {tower.most_tokens} tokens, the largest{heard}"
    costly = None if model.encoder else kv_costs.warning(load.kv_types)
    if costly is not None:
        yield costly
    if model.drafter is not None:
        yield f"the drafter {model.drafter.name} has no cache of its own: it reads the model's"


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


def _batch(model: Model, load: Load, outputs: int, *, all_logits: bool) -> Batch:
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
        outputs=ubatch if all_logits else min(outputs, ubatch),
        streams=streams,
        cells=cells,
        local_cells=cells if load.swa_full else min(cells, _padded(window, _PAD)),
        kv_types=load.kv_types,
        flash=load.flash_attention,
    )


def _texts(load: Load) -> Batch:
    """Largest batch of an encoder, which sees no more than a batch at a time and has no cache."""
    tokens = _padded(load.ubatch or _UBATCH, load.parallel)
    return Batch(tokens, load.parallel, 1, tokens, tokens, load.kv_types, load.flash_attention)


def _row_bytes(layers: Sequence[Layer], kv_types: tuple[str, str], widest: int) -> int:
    """Bytes that a token takes in the caches of these layers.

    Args:
        layers: Layers whose caches are counted.
        kv_types: Types of the K cache and of the V cache.
        widest: Width of V in every layer's cache at least: that of the widest layer where V is stored transposed.
    """
    k_type, v_type = (ENCODINGS[kind] for kind in kv_types)
    return sum(k_type.row_bytes(layer.kv_width) + v_type.row_bytes(max(layer.kv_width, widest)) for layer in layers)


def output_bytes(model: Model, sequences: int) -> int:
    """Bytes of the buffer in main memory that logits are copied to, and the vectors of an encoder."""
    return _F32 * (model.config.vocab_size + model.encoder * model.config.hidden_size) * sequences


def _host_compute(config: TextConfig, batch: Batch) -> int:
    """Bytes of scratch memory on the host: masks, and what is looked up in tables, to 0.02 MiB."""
    rows = 2 * config.hidden_size + config.num_hidden_layers * config.layer_embedding
    return _masks(batch) + _F32 * batch.tokens * rows


def _masks(batch: Batch) -> int:
    """Bytes of the masks of attention scores."""
    return (2 if batch.flash else _F32) * batch.tokens * (batch.cells + batch.local_cells)


@cache
def _compute(graph: ModuleType, config: TextConfig, batch: Batch) -> int:
    return buffer_bytes(graph.build(config, batch))


@cache
def _card_compute(graph: ModuleType, config: TextConfig, batch: Batch, share: Share) -> int:
    return buffer_bytes(of_card(graph.build(config, batch), config.layers, batch, share))


@cache
def _draft_compute(config: TextConfig, batch: Batch, backbone: int) -> int:
    return buffer_bytes(drafter_graph.build(config, batch, backbone))


def _graph(model: Model) -> ModuleType:
    """Module that builds the graph of such a model."""
    if model.encoder:
        return encoder_graph
    if model.config.streams > 1:
        return stream_graph
    return branched_graph if model.config.normed_values else dense_graph


@cache
def _image(tower: Encoder, text_hidden: int, flash: bool) -> int:
    """Scratch memory for the largest image.

    For towers that make all images one size, formulas that give the 121 and 1132 MiB reported for a real card
    (gguf-parser-go, issue 44): a layer's activations, and without flash attention the scores of all heads.
    """
    if tower.most_tokens:
        return buffer_bytes(tower_graph.image(tower, text_hidden, tower.most_tokens, flash=flash))
    hidden, patches = tower.hidden_size, tower.patches
    if flash:
        return 4 * patches * (tower.intermediate_size + 3 * hidden)
    return 4 * patches * (6 * hidden + tower.num_attention_heads * patches)


def _server(model: Model, load: Load) -> Estimate:
    notes: tuple[str, ...] = ()
    if model.encoder:
        notes = (f"a text of more than {load.ubatch or _UBATCH} tokens is refused: --ubatch 2048 for the longest",)
    elif load.parallel == 1:
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
    encodes=True,
    drafts=True,
)
