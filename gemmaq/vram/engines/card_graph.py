"""What one card computes of a graph whose layers lie on several cards and in main memory.

llama.cpp computes large batches on the first card wherever the weights lie. Weights in main memory are copied to it one
after the other, and caches there layer by layer; the room of a copy is free again behind its last reader. What a card
needs of another, or of main memory, is copied to it when it needs it for the first time. Source: ggml-backend.cpp's
ggml_backend_sched_split_graph.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gemmaq.encodings import ENCODINGS
from gemmaq.models.config import Layer
from gemmaq.vram.engines.cached_attention import Batch
from gemmaq.vram.engines.ggml_allocator import OUTSIDE, Graph, Tensor, leaf, moved

_GATE_AND_UP = 2 / 3
"""Part of a layer's experts that is their gate and up projections."""
_COPIED = ("flash", "matrix", "cast")
"""Operations that read caches."""


@dataclass(frozen=True, slots=True)
class Share:
    """What one card computes.

    Attributes:
        own: Layers that lie on the card.
        leads: Whether it is the first card, which computes what lies in main memory, too.
        last: Whether the output lies on it.
        weights: Bytes of the layers in main memory, the first ones, experts not counted.
        experts: Bytes of the experts in main memory, those of the first layers.
    """

    own: range
    leads: bool
    last: bool
    weights: tuple[int, ...] = ()
    experts: tuple[int, ...] = ()


def of_card(graph: Graph, layers: Sequence[Layer], batch: Batch, share: Share) -> Graph:
    """The part of a whole model's graph that a card computes; uses up the graph.

    Args:
        graph: Graph of the whole model.
        layers: Its layers.
        batch: Its batch.
        share: What the card computes.
    """
    parts = [graph.nodes[start:end] for start, end in zip(graph.ends, graph.ends[1:], strict=False)]
    prelude, tail = graph.nodes[: graph.ends[0]], graph.nodes[graph.ends[-1] :]
    kept = list(prelude) if share.leads else []
    for number, (layer, nodes) in enumerate(zip(layers, parts, strict=True)):
        on_card = number in share.own
        if not on_card and not (share.leads and number < len(share.weights)):
            continue
        source = number if layer.kv_from is None else layer.kv_from
        if source not in share.own:
            _move_caches(nodes, layers[source], batch)
        if number < len(share.weights):
            _move_weights(nodes, share.weights[number])
        if number >= len(share.experts):
            kept += nodes
        elif share.leads:
            _move_experts(nodes, share.experts[number])
            kept += nodes
        else:
            kept += _without_experts(nodes)
    return _closed(kept + (tail if share.last else []))


def _products(nodes: Sequence[Tensor]) -> Iterator[Tensor]:
    """Products of a layer's matrices with its states, experts not counted."""
    return (node for node in nodes if node.operation == "matrix" and node.sources[0] is OUTSIDE)


def _expert_products(nodes: Sequence[Tensor]) -> list[Tensor]:
    """Products of a layer's experts: gate and up together, and down."""
    return [node for node in _products(nodes) if len(node.sources) > 2]


def _move_weights(nodes: Sequence[Tensor], size: int) -> None:
    """Let the products of a layer read copies of its matrices, all of them of so many bytes."""
    products = [node for node in _products(nodes) if len(node.sources) == 2]
    counts = [node.shape[0] * node.sources[1].shape[0] for node in products]
    for node, count in zip(products, counts, strict=True):
        node.sources = (moved(size * count // sum(counts)), *node.sources[1:])


def _move_experts(nodes: Sequence[Tensor], size: int) -> None:
    first = int(size * _GATE_AND_UP)
    for node, part in zip(_expert_products(nodes), (first, size - first), strict=True):
        node.sources = (moved(part), *node.sources[1:])


def _move_caches(nodes: Sequence[Tensor], layer: Layer, batch: Batch) -> None:
    """Let attention read copies of caches that lie elsewhere."""
    cells = batch.streams * (batch.local_cells if layer.is_local else batch.cells)
    sizes = iter([cells * ENCODINGS[kind].row_bytes(layer.kv_width) for kind in batch.kv_types])
    for node in nodes:
        if node.operation in _COPIED and any(map(_is_cache, node.sources)):
            node.sources = tuple(leaf(next(sizes), width=1) if _is_cache(source) else source for source in node.sources)


def _is_cache(tensor: Tensor) -> bool:
    return tensor.operation == "view" and tensor.base is OUTSIDE


def _without_experts(nodes: Sequence[Tensor]) -> list[Tensor]:
    """Nodes of a layer whose experts another card computes: it gets their inputs and gives their results."""
    products = _expert_products(nodes)
    if not products:
        return list(nodes)
    first, second = products
    first.size, first.sources, second.moved = 0, first.sources[1:], True
    away = {node for node in nodes if node.base is first}
    away |= {node for node in nodes if away & set(node.sources)}
    return [node for node in nodes if node not in away and node is not second]


def _closed(nodes: Sequence[Tensor]) -> Graph:
    """Graph of some nodes; what they read of others becomes an input."""
    graph, known = Graph(), set(nodes)
    there: set[Tensor] = set()
    for node in nodes:
        base = node.base
        if base is not None and base is not OUTSIDE and base.operation is not None and base not in known:
            _make_input(node)
        for source in () if node.operation is None else node.sources:
            if source not in known and source not in there:
                if source.operation is not None and source.base is not OUTSIDE:
                    _make_input(source)
                there.add(source)
                if source.operation is None:
                    graph.leaves.append(source)
        (graph.leaves if node.operation is None else graph.nodes).append(node)
    return graph


def _make_input(tensor: Tensor) -> None:
    tensor.operation, tensor.sources = None, ()
    if tensor.base is not None:
        tensor.base, tensor.size = None, 4 * math.prod(tensor.shape)
