"""Graph that llama.cpp computes for a batch of a drafter, as far as memory is concerned.

Its input is the target's embedding of each token beside the state behind the target's last norm. Its layers attend to
what the target's caches hold and write nothing to them; rows are chosen for the output before the last feed-forward
part. Beside the logits it returns a state as wide as the target's; tokens are chosen in the graph, from a copy of the
logits with a row more. Source of the order of operations: llama.cpp's graph of such models, and its build_sampling.
"""

from __future__ import annotations

from gemmaq.models.config import TextConfig
from gemmaq.vram.engines import cached_attention as parts
from gemmaq.vram.engines.branched_graph import attention
from gemmaq.vram.engines.cached_attention import Batch, matrix, norm
from gemmaq.vram.engines.dense_graph import behind_attention, chosen
from gemmaq.vram.engines.ggml_allocator import OUTSIDE, Graph, leaf, result


def build(config: TextConfig, batch: Batch, backbone: int) -> Graph:
    """Graph of a batch with so many sequences as `outputs`, for a target of that width."""
    graph, tokens = Graph(), batch.tokens
    rows = result("get_rows", (backbone, tokens), OUTSIDE, leaf(tokens))
    both = result("concat", (2 * backbone, tokens), result("scale", rows.shape, rows), leaf(backbone, tokens))
    state = matrix(both, config.hidden_size)
    positions, output_ids = leaf(tokens), leaf(batch.outputs)
    inputs = parts.inputs(config.layers, batch)
    for number, layer in enumerate(config.layers, 1):
        given = inputs[layer.is_local]
        attended = attention(graph, batch, given, layer=layer, state=norm(state), positions=positions)
        if number == len(config.layers):
            attended, state = (chosen(tensor, output_ids) for tensor in (attended, state))
        state = behind_attention(layer, attended, state)
        state = result("mul", state.shape, state, OUTSIDE)
    state = norm(state)
    logits = matrix(state, config.vocab_size)
    logits.kept = True
    graph.expand(logits)
    graph.expand(matrix(state, backbone))
    graph.expand(result("pad", (config.vocab_size, batch.outputs + 1), logits))
    return graph
