"""Attention of llama.cpp over its caches, and the parts that the graphs of all its models share.

The cache is two: one of the layers that attend to the whole context, one of those with a sliding window.
"""

from __future__ import annotations

from dataclasses import dataclass

from gemmaq.encodings import ENCODINGS
from gemmaq.models.config import Layer
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
class Inputs:
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


def inputs(layers: tuple[Layer, ...], batch: Batch) -> dict[bool, Inputs]:
    """Inputs of the layers with a sliding window (True), and of those without (False)."""
    return {local: _inputs(layers, batch, local) for local in {layer.is_local for layer in layers}}


def _inputs(layers: tuple[Layer, ...], batch: Batch, local: bool) -> Inputs:
    """Inputs of one kind of layers; K and V are rotated if all of them have heads of one size."""
    cells = batch.local_cells if local else batch.cells
    widest = max(layer.kv_width for layer in layers)
    head_dims = {layer.head_dim for layer in layers if layer.is_local == local}
    head_dim = head_dims.pop() if len(head_dims) == 1 else 0
    rotatable = head_dim > 0 and head_dim % _LEAST_ROTATION == 0
    rotates_k, rotates_v = (rotatable and ENCODINGS[kind].bits > 0 for kind in batch.kv_types)
    k_side = _LEAST_ROTATION
    while rotatable and head_dim % (2 * k_side) == 0:
        k_side *= 2
    return Inputs(
        cells=cells,
        mask=leaf(cells, batch.tokens, width=2 if batch.flash else 4),
        k_places=leaf(batch.tokens, width=8),
        v_places=leaf(batch.tokens * (1 if batch.flash else widest), width=8),
        k_rotation=leaf(k_side, k_side) if rotates_k else None,
        v_rotation=leaf(_LEAST_ROTATION, _LEAST_ROTATION) if rotates_v else None,
    )


@dataclass(frozen=True, slots=True)
class Heads:
    """Queries of a batch, [head_dim, heads, tokens], and its keys and values, None for a layer that reads others'."""

    queries: Tensor
    keys: Tensor | None = None
    values: Tensor | None = None


def embedded(graph: Graph, hidden: int, tokens: int) -> Tensor:
    """Embeddings of the batch's tokens, scaled."""
    rows = result("get_rows", (hidden, tokens), OUTSIDE, leaf(tokens))
    graph.expand(rows)
    graph.expand(leaf(hidden, tokens))  # input for the embeddings of an image, allocated for text as well
    return result("scale", rows.shape, rows)


def attend(graph: Graph, batch: Batch, given: Inputs, *, layer: Layer, heads: Heads) -> Tensor:
    """Keys and values written to the cache, and attention over it: [heads * head_dim, tokens]."""
    q, k, v = heads.queries, heads.keys, heads.values
    if given.k_rotation is not None:
        q, k = _rotated(q, given.k_rotation), k and _rotated(k, given.k_rotation)
    if given.v_rotation is not None:
        v = v and _rotated(v, given.v_rotation)
    for tensor in (q, k, v):
        if tensor is not None:
            graph.expand(tensor)
    if k is not None and v is not None:
        _store(graph, batch, given, layer=layer, pair=(k, v))
    out = _over_cache(batch, layer, given, q)
    graph.expand(out)
    return out if given.v_rotation is None else _rotated(out, given.v_rotation)


def _store(graph: Graph, batch: Batch, given: Inputs, *, layer: Layer, pair: tuple[Tensor, Tensor]) -> None:
    keys, values = (view(tensor, layer.kv_width, batch.tokens) for tensor in pair)
    if not batch.flash:
        values = view(values, 1, layer.kv_width * batch.tokens)  # V lies transposed in the cache, number by number
    for stored, places in ((keys, given.k_places), (values, given.v_places)):
        graph.expand(Tensor("set_rows", (), 0, (stored, places, OUTSIDE), OUTSIDE))


def _over_cache(batch: Batch, layer: Layer, given: Inputs, q: Tensor) -> Tensor:
    """Attention of the queries [head_dim, heads, tokens] over the cache: [heads * head_dim, tokens]."""
    tokens, streams, size, heads = batch.tokens, batch.streams, layer.head_dim, layer.heads
    each = tokens // streams
    q = view(view(q, size, heads, each, streams), size, each, heads, streams)
    caches = [view(view(OUTSIDE)) for _ in batch.kv_types]
    if batch.flash:
        shape = (size, given.cells, layer.kv_heads, streams)
        caches = [
            result("cast", shape, cache, width=2) if kind == "f32" else cache
            for cache, kind in zip(caches, batch.kv_types, strict=True)
        ]
        return view(result("flash", (size, heads, each, streams), q, *caches, given.mask), size * heads, tokens)
    scores = result("matrix", (given.cells, each, heads, streams), caches[0], q)
    scores = result("soft_max", scores.shape, scores, given.mask)
    mixed = result("matrix", (size, each, heads, streams), caches[1], scores)
    return result("cont", (size * heads, tokens), view(mixed, size, heads, each, streams))


def feed_forward(width: int, state: Tensor) -> Tensor:
    """Gated feed-forward part of that width."""
    up, gate = matrix(state, width), matrix(state, width)
    return matrix(result("glu", up.shape, gate, up), state.shape[0])


def matrix(state: Tensor, rows: int) -> Tensor:
    """Product of a weight matrix with so many rows and the state."""
    return result("matrix", (rows, *state.shape[1:]), OUTSIDE, state)


def norm(state: Tensor) -> Tensor:
    """RMS norm with a weight."""
    return result("mul", state.shape, result("rms_norm", state.shape, state), OUTSIDE)


def _rotated(state: Tensor, rotation: Tensor) -> Tensor:
    """K, Q or V rotated group by group, as they are for a quantized cache."""
    side = rotation.shape[0]
    count = state.size or (state.base.size if state.base is not None else 0)
    flat = view(state, side, count // 4 // side)
    return view(result("matrix", flat.shape, rotation, flat), *state.shape)
