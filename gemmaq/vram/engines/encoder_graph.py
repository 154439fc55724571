"""Graph that llama.cpp computes for a batch of a model that turns texts into vectors, as far as memory is concerned.

All tokens of a batch attend to each other, there is no cache, and the vectors of its tokens are averaged in the end.
Source of the order of operations: llama.cpp's graph of such models and its build_attn_mha.
"""

from __future__ import annotations

from gemmaq.models.config import Layer, TextConfig
from gemmaq.vram.engines import cached_attention as parts
from gemmaq.vram.engines.cached_attention import Batch, Heads, matrix, norm
from gemmaq.vram.engines.dense_graph import behind_attention, chosen, projected
from gemmaq.vram.engines.ggml_allocator import Graph, Tensor, leaf, result, view


def build(config: TextConfig, batch: Batch) -> Graph:
    """Graph of a batch, of which all tokens are wanted; `outputs` are the texts in it."""
    graph, tokens = Graph(), batch.tokens
    state = parts.embedded(graph, config.hidden_size, tokens)
    positions, output_ids = leaf(tokens), leaf(tokens)
    kinds = {layer.is_local for layer in config.layers}
    masks = {local: leaf(tokens, tokens, width=2 if batch.flash else 4) for local in kinds}
    for number, layer in enumerate(config.layers):
        heads = projected(layer, norm(state), positions)
        for tensor in (heads.queries, heads.keys, heads.values):
            if tensor is not None:
                graph.expand(tensor)
        out = _attended(layer, heads, masks[layer.is_local], flash=batch.flash)
        graph.expand(out)
        attended = matrix(out, config.hidden_size)
        if number == len(config.layers) - 1:
            attended, state = (chosen(tensor, output_ids) for tensor in (attended, state))
        state = behind_attention(layer, attended, state)
    state = norm(state)
    state.kept = True
    turned = result("cont", (tokens, config.hidden_size), view(state, tokens, config.hidden_size))
    graph.expand(result("matrix", (config.hidden_size, batch.outputs), turned, leaf(tokens, batch.outputs)))
    return graph


def _attended(layer: Layer, heads: Heads, mask: Tensor, *, flash: bool) -> Tensor:
    """Attention of all tokens over all tokens: [heads * head_dim, tokens]."""
    size, count, tokens = heads.queries.shape
    queries = view(view(heads.queries), size, tokens, count)
    assert heads.keys is not None and heads.values is not None
    rows = (size, tokens, layer.kv_heads)
    keys, values = view(heads.keys, *rows), view(heads.values, *rows)
    if flash:
        keys, values = (result("cast", rows, tensor, width=2) for tensor in (keys, values))
        return view(result("flash", (size, count, tokens), queries, keys, values, mask), size * count, tokens)
    turned = result("cont", (tokens, size, layer.kv_heads), view(values, tokens, size, layer.kv_heads))
    scores = result("matrix", (tokens, tokens, count), keys, queries)
    scores = result("soft_max", scores.shape, scores, mask)
    mixed = result("matrix", (size, tokens, count), turned, scores)
    return result("cont", (size * count, tokens), view(mixed, size, count, tokens))
