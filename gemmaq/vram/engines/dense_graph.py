"""Graph that llama.cpp computes for a batch of a dense text model, as far as memory is concerned.

The decoder has norms before and after attention and feed-forward, norms of queries and keys, and layers with and
without a sliding window. Source of the order of operations: llama.cpp's graphs of such models and its attention with a
sliding-window cache.
"""

from __future__ import annotations

from dataclasses import dataclass

from gemmaq.encodings import ENCODINGS
from gemmaq.models.config import Layer, TextConfig
from gemmaq.vram.engines.ggml_allocator import OUTSIDE, Graph, Tensor, leaf, result, view

_LEAST_ROTATION = 64


@dataclass(frozen=True, slots=True)
class Batch:
    """Largest batch that a context is prepared for.

    Attributes:
        tokens: Tokens of the batch.
        outputs: Tokens whose logits are computed.
        streams: Caches that the sequences are spread over.
        cells: Tokens that one stream's cache of a global layer has room for.
        local_cells: Tokens that one stream's cache of a sliding-window layer has room for.
        kv_types: Types of the K cache and of the V cache.
        flash: Whether flash attention is used.
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
    """Inputs of the graph that all layers of one kind share.

    Attributes:
        cells: Tokens that one stream's cache has room for.
        mask: Mask of the attention scores.
        k_places: Places in the K cache that the batch is written to.
        v_places: Places in the V cache.
        k_rotation: Matrix that rotates K and Q before K is quantized, None where K is not.
        v_rotation: Matrix that rotates V before it is quantized, None where V is not.
    """

    cells: int
    mask: Tensor
    k_places: Tensor
    v_places: Tensor
    k_rotation: Tensor | None
    v_rotation: Tensor | None


def build(config: TextConfig, batch: Batch) -> Graph:
    """Graph of a batch.

    Every layer is built, even where all are alike: where a layer's tensors lie depends on the holes that others left.
    """
    graph = Graph()
    tokens, hidden = batch.tokens, config.hidden_size
    embedded = result("get_rows", (hidden, tokens), OUTSIDE, leaf(tokens))
    graph.expand(embedded)
    graph.expand(leaf(hidden, tokens))  # input for the embeddings of an image, allocated for text as well
    state = result("scale", (hidden, tokens), embedded)
    positions, output_ids = leaf(tokens), leaf(batch.outputs)
    layers = config.layers
    inputs = {local: _inputs(layers, batch, local) for local in {layer.is_local for layer in layers}}
    for number, layer in enumerate(layers):
        attended = _attention(
            graph, batch, inputs[layer.is_local], layer=layer, state=_norm(state), positions=positions
        )
        if number == len(layers) - 1:
            attended = result("get_rows", (hidden, batch.outputs), attended, output_ids)
            state = result("get_rows", (hidden, batch.outputs), state, output_ids)
        state = result("add", state.shape, _norm(attended), state)
        state = result("add", state.shape, _norm(_feed_forward(layer, _norm(state))), state)
    graph.expand(_matrix(_norm(state), config.vocab_size))
    return graph


def _inputs(layers: tuple[Layer, ...], batch: Batch, local: bool) -> _Inputs:
    """Inputs of the layers with a sliding window, or of those without.

    K and V are rotated if all these layers have heads of one size.
    """
    cells = batch.local_cells if local else batch.cells
    widest = max(layer.kv_width for layer in layers)
    head_dims = {layer.head_dim for layer in layers if layer.is_local == local}
    head_dim = head_dims.pop() if len(head_dims) == 1 else 0
    rotatable = head_dim > 0 and head_dim % _LEAST_ROTATION == 0
    rotates_k, rotates_v = (rotatable and ENCODINGS[kind].bits > 0 for kind in batch.kv_types)
    k_side = _LEAST_ROTATION
    while rotatable and head_dim % (2 * k_side) == 0:
        k_side *= 2
    return _Inputs(
        cells=cells,
        mask=leaf(cells, batch.tokens, width=2 if batch.flash else 4),
        k_places=leaf(batch.tokens, width=8),
        v_places=leaf(batch.tokens * (1 if batch.flash else widest), width=8),
        k_rotation=leaf(k_side, k_side) if rotates_k else None,
        v_rotation=leaf(_LEAST_ROTATION, _LEAST_ROTATION) if rotates_v else None,
    )


def _attention(
    graph: Graph, batch: Batch, inputs: _Inputs, *, layer: Layer, state: Tensor, positions: Tensor
) -> Tensor:
    """Projections, the cache written, attention over it, and the output projection."""
    hidden, tokens = state.shape
    heads, kv_heads, size = layer.heads, layer.kv_heads, layer.head_dim
    projected = [_matrix(state, size * count) for count in (heads, kv_heads, kv_heads)]
    q, k, v = (view(t, size, n, tokens) for t, n in zip(projected, (heads, kv_heads, kv_heads), strict=True))
    q, k = (result("rope", t.shape, _norm(t), positions) for t in (q, k))
    q = result("scale", q.shape, q)
    if inputs.k_rotation is not None:
        q, k = _rotated(q, inputs.k_rotation), _rotated(k, inputs.k_rotation)
    if inputs.v_rotation is not None:
        v = _rotated(v, inputs.v_rotation)
    for tensor in (q, v, k):
        graph.expand(tensor)
    stored_k, stored_v = view(k, layer.kv_width, tokens), view(v, layer.kv_width, tokens)
    if not batch.flash:
        stored_v = view(stored_v, 1, layer.kv_width * tokens)  # V lies transposed in the cache, number by number
    for stored, places in ((stored_k, inputs.k_places), (stored_v, inputs.v_places)):
        graph.expand(Tensor("set_rows", (), 0, (stored, places, OUTSIDE), OUTSIDE))
    out = _over_cache(batch, layer, inputs, q)
    graph.expand(out)
    if inputs.v_rotation is not None:
        out = _rotated(out, inputs.v_rotation)
    return _matrix(out, hidden)


def _over_cache(batch: Batch, layer: Layer, inputs: _Inputs, q: Tensor) -> Tensor:
    """Attention of the queries [head_dim, heads, tokens] over the cache: [heads * head_dim, tokens]."""
    tokens, streams, size, heads = batch.tokens, batch.streams, layer.head_dim, layer.heads
    each = tokens // streams
    q = view(view(q, size, heads, each, streams), size, each, heads, streams)
    caches = [view(view(OUTSIDE)) for _ in batch.kv_types]
    if batch.flash:
        shape = (size, inputs.cells, layer.kv_heads, streams)
        caches = [
            result("cast", shape, cache, width=2) if kind == "f32" else cache
            for cache, kind in zip(caches, batch.kv_types, strict=True)
        ]
        return view(result("flash", (size, heads, each, streams), q, *caches, inputs.mask), size * heads, tokens)
    scores = result("matrix", (inputs.cells, each, heads, streams), caches[0], q)
    scores = result("soft_max", scores.shape, scores, inputs.mask)
    mixed = result("matrix", (size, each, heads, streams), caches[1], scores)
    return result("cont", (size * heads, tokens), view(mixed, size, heads, each, streams))


def _feed_forward(layer: Layer, state: Tensor) -> Tensor:
    up, gate = _matrix(state, layer.ffn), _matrix(state, layer.ffn)
    return _matrix(result("glu", up.shape, gate, up), state.shape[0])


def _matrix(state: Tensor, rows: int) -> Tensor:
    """Product of a weight matrix with so many rows and the state."""
    return result("matrix", (rows, state.shape[1]), OUTSIDE, state)


def _norm(state: Tensor) -> Tensor:
    return result("mul", state.shape, result("rms_norm", state.shape, state), OUTSIDE)


def _rotated(state: Tensor, rotation: Tensor) -> Tensor:
    """K, Q or V rotated group by group, as they are for a quantized cache."""
    side = rotation.shape[0]
    count = state.size or (state.base.size if state.base is not None else 0)
    flat = view(state, side, count // 4 // side)
    return view(result("matrix", flat.shape, rotation, flat), *state.shape)
