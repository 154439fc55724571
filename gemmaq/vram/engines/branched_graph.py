"""Graph that llama.cpp computes for a decoder with branches, as far as memory is concerned.

Beside the feed-forward part there may be experts, and an embedding of the token for every layer may be added behind
it. Values are normed, layers may attend to the keys and values of an earlier one, every layer's output is scaled, and
rows are chosen for the output behind the last norm. Source of the order of operations: llama.cpp's graph of such
models, its attention with a sliding-window cache and its build_moe_ffn.
"""

from __future__ import annotations

from gemmaq.models.config import Experts, Layer, TextConfig
from gemmaq.vram.engines import cached_attention as parts
from gemmaq.vram.engines.cached_attention import Batch, Heads, Inputs, feed_forward, matrix, norm
from gemmaq.vram.engines.ggml_allocator import OUTSIDE, Graph, Tensor, leaf, result, view


def build(config: TextConfig, batch: Batch) -> Graph:
    """Graph of a batch."""
    graph, tokens = Graph(), batch.tokens
    state = parts.embedded(graph, config.hidden_size, tokens)
    positions, output_ids = leaf(tokens), leaf(batch.outputs)
    layers, width = config.layers, config.layer_embedding
    inputs = parts.inputs(layers, batch)
    additions = layer_inputs(graph, state, len(layers), width) if width else None
    graph.end(state)
    for layer in layers:
        attended = attention(graph, batch, inputs[layer.is_local], layer=layer, state=norm(state), positions=positions)
        attended = result("add", state.shape, norm(attended), state)
        if layer.experts is None:
            fed = feed_forward(layer.ffn, norm(attended))
        else:
            dense = norm(feed_forward(layer.ffn, norm(attended)))
            fed = result("add", state.shape, dense, norm(_experts(graph, layer.experts, attended)))
        state = result("add", state.shape, norm(fed), attended)
        if additions is not None:
            added = norm(addition(state, view(additions, width, tokens)))
            state = result("add", state.shape, state, added)
        state = result("mul", state.shape, state, OUTSIDE)
        graph.end(state)
    state = norm(state)
    state.kept = True
    state = result("get_rows", (config.hidden_size, batch.outputs), state, output_ids)
    graph.expand(logits(state, config))
    return graph


def layer_inputs(graph: Graph, state: Tensor, layers: int, width: int) -> Tensor:
    """Inputs of every layer, from its own embeddings of the tokens and the usual ones: [width, tokens, layers]."""
    shape = (width, layers, state.shape[1])
    rows = result("get_rows", (width * layers, state.shape[1]), OUTSIDE, leaf(state.shape[1]))
    looked_up = result("scale", shape, view(rows, *shape))
    graph.expand(looked_up)
    projected = matrix(state, width * layers)
    projected = norm(view(result("scale", projected.shape, projected), *shape))
    summed = result("add", shape, projected, looked_up)
    return result("cont", (width, state.shape[1], layers), view(result("scale", shape, summed)))


def addition(state: Tensor, given: Tensor) -> Tensor:
    """What a layer makes of its own embedding of the tokens."""
    gate = matrix(state, given.shape[0])
    gated = result("mul", gate.shape, result("gelu", gate.shape, gate), given)
    return matrix(gated, state.shape[0])


def attention(graph: Graph, batch: Batch, given: Inputs, *, layer: Layer, state: Tensor, positions: Tensor) -> Tensor:
    """Attention of the normed state, with keys and values of its own or of another layer, and the output projection."""
    size, tokens = layer.head_dim, batch.tokens
    queries = norm(view(matrix(state, layer.query_width), size, layer.heads, tokens))
    heads = Heads(result("rope", queries.shape, queries, positions))
    if layer.kv_from is None:
        shape = (size, layer.kv_heads, tokens)
        projected = matrix(state, layer.kv_width)
        values = projected if layer.k_is_v else matrix(state, layer.kv_width)
        keys = norm(view(projected, *shape))
        values = result("rms_norm", shape, view(values, *shape))
        heads = Heads(heads.queries, result("rope", shape, keys, positions), values)
    return matrix(parts.attend(graph, batch, given, layer=layer, heads=heads), state.shape[0])


def _experts(graph: Graph, experts: Experts, attended: Tensor) -> Tensor:
    """Sum of the chosen experts' results, of which the router gets its own norm of the state."""
    hidden, tokens = attended.shape
    active = experts.active
    state = norm(attended)
    routed = result("scale", attended.shape, result("rms_norm", attended.shape, attended))
    scores = matrix(result("mul", routed.shape, routed, OUTSIDE), experts.count)
    probabilities = result("soft_max", scores.shape, scores)
    order = result("argsort", scores.shape, probabilities)
    chosen = view(order, active, tokens)
    weights = result("get_rows", (1, active, tokens), view(probabilities, 1, experts.count, tokens), chosen)
    flat = view(weights, active, tokens)
    total = view(result("sum_rows", (1, tokens), flat), 1, tokens)  # clamped where it lies
    weights = view(result("div", flat.shape, flat, total), 1, active, tokens)
    graph.expand(weights)
    both = result("matrix", (2 * experts.ffn, active, tokens), OUTSIDE, view(state, hidden, 1, tokens), chosen)
    gate, up = (view(both, experts.ffn, active, tokens) for _ in range(2))
    mixed = result("glu", (experts.ffn, active, tokens), gate, up)
    out = result("matrix", (hidden, active, tokens), OUTSIDE, mixed, chosen)
    scales = result("repeat", (1, experts.count, tokens), view(OUTSIDE))
    out = result("mul", out.shape, out, result("get_rows", (1, active, tokens), scales, chosen))
    out = result("mul", out.shape, out, weights)
    graph.expand(out)
    each = [view(out, hidden, tokens) for _ in range(active)]
    for part in each:
        graph.expand(part)
    total = each[0]
    for part in each[1:]:
        total = result("add", (hidden, tokens), total, part)
        graph.expand(total)
    return total


def logits(state: Tensor, config: TextConfig) -> Tensor:
    """Logits of the state, bounded where the model bounds them."""
    out = matrix(state, config.vocab_size)
    if config.final_logit_softcapping is None:
        return out
    for operation in ("scale", "tanh", "scale"):
        out = result(operation, out.shape, out)
    return out
