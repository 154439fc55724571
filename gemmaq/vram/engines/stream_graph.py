"""Graph that llama.cpp computes for a decoder with several residual streams (AltUp), as far as memory is concerned.

Each layer predicts all streams from one another, runs attention and feed-forward on the first prediction, and corrects
the others. A low-rank shortcut (LAuReL) lies beside attention, and embeddings of the tokens for every layer are added
to all streams but the first. Source of the order of operations: llama.cpp's graph of such models.
"""

from __future__ import annotations

from gemmaq.models.config import Layer, TextConfig
from gemmaq.vram.engines import cached_attention as parts
from gemmaq.vram.engines.branched_graph import addition, attention, layer_inputs, logits
from gemmaq.vram.engines.cached_attention import Batch, matrix, norm
from gemmaq.vram.engines.ggml_allocator import OUTSIDE, Graph, Tensor, leaf, result, view

_SHORTCUT = 64
"""Rank of the shortcut, which llama.cpp fixes."""


def build(config: TextConfig, batch: Batch) -> Graph:
    """Graph of a batch."""
    graph, tokens, hidden, count = Graph(), batch.tokens, config.hidden_size, config.streams
    state = parts.embedded(graph, hidden, tokens)
    positions, output_ids = leaf(tokens), leaf(batch.outputs)
    layers, width = config.layers, config.layer_embedding
    inputs = parts.inputs(layers, batch)
    given = layer_inputs(graph, state, len(layers), width)
    repeated = result("repeat", (hidden, tokens, count - 1), state)
    streams = result("concat", (hidden, tokens, count), state, _of_magnitude(repeated, state))
    graph.end(streams)
    for layer in layers:
        predictions = _predicted(streams)
        active = view(predictions, hidden, tokens)
        normed = norm(active)
        shortcut = result("add", active.shape, norm(matrix(matrix(normed, _SHORTCUT), hidden)), normed)
        attended = attention(graph, batch, inputs[layer.is_local], layer=layer, state=normed, positions=positions)
        attended = result("add", active.shape, norm(attended), active)
        attended = result("scale", active.shape, result("add", active.shape, attended, shortcut))
        fed = result("add", active.shape, norm(_feed_forward(layer, norm(attended))), attended)
        corrected = _corrected(predictions, fed)
        first = result("mul", active.shape, view(corrected, hidden, tokens), OUTSIDE)
        added = norm(addition(first, view(given, width, tokens)))
        others = result("add", (hidden, tokens, count - 1), view(corrected, hidden, tokens, count - 1), added)
        streams = result("concat", streams.shape, view(corrected, hidden, tokens), others)
        graph.end(streams)
    merged = view(streams, hidden, tokens)
    others = _of_magnitude(view(streams, hidden, tokens, count - 1), merged)
    merged = view(streams, hidden, tokens)
    for _ in range(count - 1):
        merged = result("add", merged.shape, merged, view(others, hidden, tokens))
    merged = result("get_rows", (hidden, batch.outputs), result("scale", merged.shape, merged), output_ids)
    merged = norm(merged)
    graph.expand(logits(merged, config))
    return graph


def _of_magnitude(state: Tensor, target: Tensor) -> Tensor:
    """Projections of the streams, scaled to the magnitude of the target."""
    projected = matrix(state, state.shape[0])
    magnitude = _magnitude(target)
    scaled = result("mul", projected.shape, projected, magnitude)
    return result("div", projected.shape, scaled, _magnitude(projected))


def _magnitude(state: Tensor) -> Tensor:
    shape = (1, *state.shape[1:])
    return result("sqrt", shape, result("sum_rows", shape, result("sqr", state.shape, state)))


def _modalities(state: Tensor, count: int) -> Tensor:
    """What the router says of the state, a number for each stream."""
    normed = norm(state)
    routed = matrix(result("scale", normed.shape, normed), count)
    return result("tanh", routed.shape, routed)


def _predicted(streams: Tensor) -> Tensor:
    """Streams as the router predicts them from one another."""
    hidden, tokens, count = streams.shape
    factors = matrix(_modalities(view(streams, hidden, tokens), count), count * count)
    turned = result("cont", (count, hidden, tokens), view(streams, count, hidden, tokens))
    mixed = result("matrix", (hidden, count, tokens), turned, view(factors, count, count, tokens))
    return result("add", streams.shape, result("cont", streams.shape, view(mixed)), streams)


def _corrected(predictions: Tensor, state: Tensor) -> Tensor:
    """Streams after the layer, corrected by what it changed in the first one."""
    hidden, tokens, count = predictions.shape
    change = result("sub", state.shape, state, view(predictions, hidden, tokens))
    factors = matrix(_modalities(state, count), count)
    factors = result("scale", factors.shape, factors)
    factors = result("cont", (1, tokens, count), view(factors))
    change = result("mul", predictions.shape, result("repeat", predictions.shape, change), factors)
    return result("add", predictions.shape, change, predictions)


def _feed_forward(layer: Layer, state: Tensor) -> Tensor:
    """Gated feed-forward part; in sparse layers only the largest gates are kept."""
    up, gate = matrix(state, layer.ffn), matrix(state, layer.ffn)
    if layer.sparse:
        gate = _largest(gate)
    gate = result("gelu", gate.shape, gate)
    return matrix(result("mul", up.shape, up, gate), state.shape[0])


def _largest(gate: Tensor) -> Tensor:
    one = (1, gate.shape[1])
    mean = result("mean", one, gate)
    squares = result("sqr", gate.shape, result("sub", gate.shape, gate, mean))
    spread = result("sqrt", one, result("scale", one, result("sum_rows", one, squares)))
    cutoff = result("add", one, mean, result("scale", one, spread))
    return result("relu", gate.shape, result("sub", gate.shape, gate, cutoff))
