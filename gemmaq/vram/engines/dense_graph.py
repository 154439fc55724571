"""Graph that llama.cpp computes for a batch of a dense text model, as far as memory is concerned.

The decoder has norms before and after attention and feed-forward, norms of queries and keys, and layers with and
without a sliding window. Source of the order of operations: llama.cpp's graphs of such models and its attention with a
sliding-window cache.
"""

from __future__ import annotations

from gemmaq.models.config import Layer, TextConfig
from gemmaq.vram.engines import cached_attention as parts
from gemmaq.vram.engines.cached_attention import Batch, Heads, feed_forward, matrix, norm
from gemmaq.vram.engines.ggml_allocator import Graph, Tensor, leaf, result, view


def build(config: TextConfig, batch: Batch) -> Graph:
    """Graph of a batch.

    Every layer is built, even where all are alike: where a layer's tensors lie depends on the holes that others left.
    """
    graph = Graph()
    state = parts.embedded(graph, config.hidden_size, batch.tokens)
    positions, output_ids = leaf(batch.tokens), leaf(batch.outputs)
    inputs = parts.inputs(config.layers, batch)
    graph.end(state)
    for number, layer in enumerate(config.layers):
        given, heads = inputs[layer.is_local], projected(layer, norm(state), positions)
        attended = matrix(parts.attend(graph, batch, given, layer=layer, heads=heads), config.hidden_size)
        if number == len(config.layers) - 1:
            attended, state = (chosen(tensor, output_ids) for tensor in (attended, state))
        state = behind_attention(layer, attended, state)
        graph.end(state)
    graph.expand(matrix(norm(state), config.vocab_size))
    return graph


def projected(layer: Layer, normed: Tensor, positions: Tensor) -> Heads:
    """Queries, keys and values of the normed state."""
    counts = (layer.heads, layer.kv_heads, layer.kv_heads)
    shapes = [(layer.head_dim, count, normed.shape[1]) for count in counts]
    q, k, v = (view(matrix(normed, layer.head_dim * shape[1]), *shape) for shape in shapes)
    q, k = (result("rope", t.shape, norm(t), positions) for t in (q, k))
    return Heads(result("scale", q.shape, q), k, v)


def chosen(state: Tensor, output_ids: Tensor) -> Tensor:
    """Rows of the tokens whose results are wanted."""
    return result("get_rows", (state.shape[0], *output_ids.shape), state, output_ids)


def behind_attention(layer: Layer, attended: Tensor, state: Tensor) -> Tensor:
    """State after a layer, from the result of its attention and the state before it."""
    state = result("add", state.shape, norm(attended), state)
    return result("add", state.shape, norm(feed_forward(layer.ffn, norm(state))), state)
