"""ggml's graph allocator on small graphs whose buffers can be worked out by hand."""

from __future__ import annotations

from gemmaq.vram.engines.ggml_allocator import OUTSIDE, Graph, Tensor, buffer_bytes, leaf, result, view


def size(*tensors: Tensor) -> int:
    graph = Graph()
    for tensor in tensors:
        graph.expand(tensor)
    return buffer_bytes(graph)


def test_weights_and_cache_lie_elsewhere() -> None:
    assert size(result("matrix", (8, 8), OUTSIDE, OUTSIDE)) == 8 * 8 * 4


def test_inputs_keep_their_place_and_results_are_padded() -> None:
    assert size(result("matrix", (3,), OUTSIDE, leaf(5))) == 32 + 32


def test_an_operation_writes_over_what_nothing_else_reads() -> None:
    first = result("matrix", (64,), OUTSIDE, leaf(8))
    assert size(result("scale", (64,), first)) == 32 + 256
    first = result("matrix", (64,), OUTSIDE, leaf(8))
    scaled = result("scale", (64,), first)
    assert size(result("add", (64,), scaled, first)) == 32 + 2 * 256


def test_a_freed_block_is_used_again() -> None:
    large = result("matrix", (256,), OUTSIDE, leaf(8))
    small = result("matrix", (64,), OUTSIDE, large)
    last = result("matrix", (256,), OUTSIDE, small)
    assert size(last) == 32 + 1024 + 256
    assert size(result("matrix", (320,), OUTSIDE, result("matrix", (64,), OUTSIDE, leaf(8)))) == 32 + 256 + 1280


def test_a_view_keeps_its_tensor_alive() -> None:
    first = result("matrix", (64,), OUTSIDE, leaf(8))
    shown = view(view(first, 8, 8), 64)
    other = result("matrix", (64,), OUTSIDE, leaf(8))
    assert shown.base is first and shown.size == 0
    assert size(other, result("mix", (64,), shown, other)) == 2 * 32 + 3 * 256


def test_a_tensor_is_computed_once() -> None:
    graph = Graph()
    shared = result("matrix", (64,), OUTSIDE, leaf(8))
    graph.expand(result("add", (64,), shared, shared))
    graph.expand(shared)
    assert [tensor.operation for tensor in graph.nodes] == ["matrix", "add"]
    assert len(graph.leaves) == 2


def test_a_view_is_never_written_over() -> None:
    first = result("matrix", (64,), OUTSIDE, leaf(8))
    assert size(result("scale", (64,), view(first, 64))) == 32 + 2 * 256


def test_an_output_keeps_its_place() -> None:
    first = result("matrix", (64,), OUTSIDE, leaf(8))
    first.kept = True
    assert size(result("matrix", (64,), OUTSIDE, result("scale", (64,), first))) == 32 + 3 * 256
