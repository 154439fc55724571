"""The graph that llama.cpp computes for a batch of a Gemma 3 text model, as far as memory is concerned.

Source of the order of operations: llama.cpp's gemma3 graph and its attention with a sliding-window cache.
"""

from __future__ import annotations

from dataclasses import dataclass

from gemmaq.encodings import ENCODINGS
from gemmaq.models.gemma3.config import TextConfig
from gemmaq.vram.engines.ggml_allocator import OUTSIDE, Graph, Tensor, leaf, made, view

_LEAST_ROTATION = 64


@dataclass(frozen=True, slots=True)
class Batch:
    """The largest batch a context is prepared for.

    Attributes:
        tokens: in it.
        outputs: tokens whose logits are wanted.
        streams: caches it is spread over.
        cells: of one stream's cache in global layers.
        local_cells: the same in sliding-window layers.
        kv_types: of the K and the V cache.
        flash: whether flash attention is used.
    """

    tokens: int
    outputs: int
    streams: int
    cells: int
    local_cells: int
    kv_types: tuple[str, str]
    flash: bool


@dataclass(frozen=True, slots=True)
class _Inputs:
    """What attention in layers of one kind reads beside the weights."""

    cells: int
    mask: Tensor
    k_places: Tensor
    v_places: Tensor
    k_rotation: Tensor | None
    v_rotation: Tensor | None


def build(config: TextConfig, batch: Batch) -> Graph:
    """The graph of a batch.

    Every layer counts, though they are alike: where tensors of one come to lie depends on the holes left by others.
    """
    graph = Graph()
    tokens, hidden = batch.tokens, config.hidden_size
    looked_up = made("get_rows", (hidden, tokens), OUTSIDE, leaf(tokens))
    graph.expand(looked_up)
    graph.expand(leaf(hidden, tokens))  # the way in for the embeddings of an image, there for text as well
    state = made("scale", (hidden, tokens), looked_up)
    positions, wanted = leaf(tokens), leaf(batch.outputs)
    inputs = {local: _inputs(config, batch, local) for local in (False, True)}
    for number, local in enumerate(config.layer_pattern):
        attended = _attention(graph, config, batch, inputs[local], _norm(state), positions)
        if number == config.num_hidden_layers - 1:
            attended = made("get_rows", (hidden, batch.outputs), attended, wanted)
            state = made("get_rows", (hidden, batch.outputs), state, wanted)
        state = made("add", state.shape, _norm(attended), state)
        state = made("add", state.shape, _norm(_feed_forward(config, _norm(state))), state)
    graph.expand(_matrix(_norm(state), config.vocab_size))
    return graph


def _inputs(config: TextConfig, batch: Batch, local: bool) -> _Inputs:
    cells = batch.local_cells if local else batch.cells
    row = config.num_key_value_heads * config.head_dim
    turnable = config.head_dim % _LEAST_ROTATION == 0
    k_turns, v_turns = (turnable and ENCODINGS[kind].bits > 0 for kind in batch.kv_types)
    k_side = _LEAST_ROTATION
    while config.head_dim % (2 * k_side) == 0:
        k_side *= 2
    return _Inputs(
        cells=cells,
        mask=leaf(cells, batch.tokens, width=2 if batch.flash else 4),
        k_places=leaf(batch.tokens, width=8),
        v_places=leaf(batch.tokens * (1 if batch.flash else row), width=8),
        k_rotation=leaf(k_side, k_side) if k_turns else None,
        v_rotation=leaf(_LEAST_ROTATION, _LEAST_ROTATION) if v_turns else None,
    )


def _attention(
    graph: Graph, config: TextConfig, batch: Batch, inputs: _Inputs, state: Tensor, positions: Tensor
) -> Tensor:
    """Projections, the cache written, attention over it, and the output projection."""
    tokens, streams, size = batch.tokens, batch.streams, config.head_dim
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    projected = [_matrix(state, size * count) for count in (heads, kv_heads, kv_heads)]
    q, k, v = (view(t, size, n, tokens) for t, n in zip(projected, (heads, kv_heads, kv_heads), strict=True))
    q, k = (made("rope", t.shape, _norm(t), positions) for t in (q, k))
    q = made("scale", q.shape, q)
    if inputs.k_rotation is not None:
        q, k = _rotated(q, inputs.k_rotation), _rotated(k, inputs.k_rotation)
    if inputs.v_rotation is not None:
        v = _rotated(v, inputs.v_rotation)
    for tensor in (q, v, k):
        graph.expand(tensor)
    stored_k, stored_v = view(k, size * kv_heads, tokens), view(v, size * kv_heads, tokens)
    if not batch.flash:
        stored_v = view(stored_v, 1, size * kv_heads * tokens)  # V lies transposed in the cache, number by number
    for stored, places in ((stored_k, inputs.k_places), (stored_v, inputs.v_places)):
        graph.expand(Tensor("set_rows", (), 0, (stored, places, OUTSIDE), OUTSIDE))
    each = tokens // streams
    q = view(view(q, size, heads, each, streams), size, each, heads, streams)
    caches = [view(view(OUTSIDE)) for _ in batch.kv_types]
    if batch.flash:
        whole = (size, inputs.cells, kv_heads, streams)
        caches = [
            made("cast", whole, cache, width=2) if kind == "f32" else cache
            for cache, kind in zip(caches, batch.kv_types, strict=True)
        ]
        out = view(made("flash", (size, heads, each, streams), q, *caches, inputs.mask), size * heads, tokens)
    else:
        scores = made("matrix", (inputs.cells, each, heads, streams), caches[0], q)
        scores = made("soft_max", scores.shape, scores, inputs.mask)
        mixed = made("matrix", (size, each, heads, streams), caches[1], scores)
        out = made("cont", (size * heads, tokens), view(mixed, size, heads, each, streams))
    graph.expand(out)
    if inputs.v_rotation is not None:
        out = _rotated(out, inputs.v_rotation)
    return _matrix(out, config.hidden_size)


def _feed_forward(config: TextConfig, state: Tensor) -> Tensor:
    up, gate = _matrix(state, config.intermediate_size), _matrix(state, config.intermediate_size)
    return _matrix(made("glu", up.shape, gate, up), config.hidden_size)


def _matrix(state: Tensor, rows: int) -> Tensor:
    """A weight matrix times the state."""
    return made("matrix", (rows, state.shape[1]), OUTSIDE, state)


def _norm(state: Tensor) -> Tensor:
    return made("mul", state.shape, made("rms_norm", state.shape, state), OUTSIDE)


def _rotated(state: Tensor, rotation: Tensor) -> Tensor:
    """Turned within groups, as K, Q and V are for a quantized cache."""
    side = rotation.shape[0]
    count = state.size or (state.base.size if state.base is not None else 0)
    flat = view(state, side, count // 4 // side)
    return view(made("matrix", flat.shape, rotation, flat), *state.shape)
