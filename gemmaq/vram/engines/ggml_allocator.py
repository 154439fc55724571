"""ggml's graph allocator, run on sizes alone: how large a buffer the tensors of a graph share.

A tensor takes the smallest free block that holds it, the end of the buffer if there is none, or the place of an input
that nothing else will read. It is freed once its last reader is done. Source of the rules: ggml-alloc.c; the tests
compare the result with llama.cpp's own log.
"""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Iterator
from dataclasses import dataclass, field

_IN_PLACE = frozenset((
    "add", "clamp", "div", "gelu", "mul", "relu", "rms_norm", "rope", "scale", "soft_max", "sqr", "sqrt", "sub", "tanh",
))  # fmt: skip
"""Operations that may write over their input."""
_ALIGNMENT = 32


@dataclass(slots=True, eq=False)
class Tensor:
    """A tensor of a graph; compared and hashed by identity.

    Attributes:
        operation: Operation that computes it, None for an input of the graph.
        shape: Numbers along each axis.
        size: Bytes, 0 for a view.
        sources: Tensors that it is computed from.
        base: Tensor that it is a view of, None if it has memory of its own.
        outside: Whether it lies in another buffer, as weights and the cache do.
        readers: Tensors that still have to be computed from it.
        views: Views of it that are still in use.
        offset: Offset in the buffer, None while it has no place there.
        kept: Whether it is an output of the graph, whose place nothing else gets.
        moved: Whether it is a copy that is made when it is needed, of a weight in main memory or another card's result.
    """

    operation: str | None
    shape: tuple[int, ...]
    size: int
    sources: tuple[Tensor, ...] = ()
    base: Tensor | None = None
    outside: bool = False
    readers: int = 0
    views: int = 0
    offset: int | None = None
    kept: bool = False
    moved: bool = False


OUTSIDE = Tensor(None, (), 0, outside=True)
"""Stands for every weight and for the cache."""


def leaf(*shape: int, width: int = 4) -> Tensor:
    """Input of the graph, of numbers of `width` bytes."""
    return Tensor(None, shape, math.prod(shape) * width)


def moved(size: int) -> Tensor:
    """Copy of a weight that lies in main memory, of so many bytes."""
    return Tensor(None, (), size, moved=True)


def result(operation: str, shape: tuple[int, ...], *sources: Tensor, width: int = 4) -> Tensor:
    """Result of an operation, of numbers of `width` bytes."""
    return Tensor(operation, shape, math.prod(shape) * width, sources)


def view(tensor: Tensor, *shape: int) -> Tensor:
    """View of a tensor's numbers in another shape or order."""
    return Tensor("view", shape, 0, (tensor,), tensor if tensor.base is None else tensor.base)


@dataclass(slots=True)
class Graph:
    """Tensors in the order in which they are computed.

    Attributes:
        leaves: Inputs.
        nodes: Results.
        ends: Number of nodes before the first layer, and up to the end of each.
    """

    leaves: list[Tensor] = field(default_factory=list)
    nodes: list[Tensor] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    _tensors: set[Tensor] = field(default_factory=set)

    @property
    def parts(self) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
        """Nodes that are computed in one go, with the leaves that no part before needs.

        A node that reads what was copied for it begins a part, so that copies before it can be gone.
        """
        first: dict[Tensor, int] = {}
        parts: list[list[Tensor]] = [[]]
        for node in self.nodes:
            if any(source.moved for source in node.sources):
                parts.append([])
            parts[-1].append(node)
            for source in node.sources:
                first.setdefault(source, len(parts) - 1)
        leaves: list[list[Tensor]] = [[] for _ in parts]
        for tensor in self.leaves:
            leaves[first.get(tensor, 0)].append(tensor)
        return zip(leaves, parts, strict=True)

    def expand(self, tensor: Tensor) -> None:
        """Add a tensor, and before it everything that it is computed from."""
        if tensor in self._tensors:
            return
        self._tensors.add(tensor)
        for source in tensor.sources:
            self.expand(source)
        (self.leaves if tensor.operation is None else self.nodes).append(tensor)

    def end(self, state: Tensor) -> None:
        """Add the state behind a layer, or before the first one, and note that the layer ends there."""
        self.expand(state)
        self.ends.append(len(self.nodes))


class _Buffer:
    """Free blocks [offset, size] of a buffer without end, sorted, and how far it has been used."""

    def __init__(self) -> None:
        self.free: list[list[int]] = [[0, 1 << 62]]
        self.used = 0

    def take(self, size: int) -> int:
        fitting = [(block[1], -at) for at, block in enumerate(self.free[:-1]) if block[1] >= size]
        at = -min(fitting)[1] if fitting else len(self.free) - 1
        block = self.free[at]
        offset = block[0]
        block[0] += size
        block[1] -= size
        if not block[1]:
            del self.free[at]
        self.used = max(self.used, offset + size)
        return offset

    def give(self, offset: int, size: int) -> None:
        at = bisect(self.free, [offset])
        self.free.insert(at, [offset, size])
        for left in (at, at - 1):
            if 0 <= left < len(self.free) - 1 and sum(self.free[left]) == self.free[left + 1][0]:
                self.free[left][1] += self.free.pop(left + 1)[1]


def buffer_bytes(graph: Graph) -> int:
    """Bytes of the buffer that holds a graph's tensors while it is computed; uses up the graph, so call it once."""
    buffer = _Buffer()
    for tensor in graph.nodes:
        if tensor.base is not None:
            tensor.base.views += 1
        for source in tensor.sources:
            source.readers += 1
    for leaves, nodes in graph.parts:
        for tensor in leaves:
            _place(tensor, buffer)
        for tensor in nodes:
            _place(tensor, buffer)
            _read(tensor, buffer)
    return buffer.used


def _read(tensor: Tensor, buffer: _Buffer) -> None:
    """Free what was read for the last time to compute a tensor."""
    for source in tensor.sources:
        source.readers -= 1
        if source.readers or source.views:
            continue
        base = source.base
        if base is not None:
            base.views -= 1
        if base is None or not (base.views or base.readers):
            _free(base or source, buffer)


def _place(tensor: Tensor, buffer: _Buffer) -> None:
    """Give a tensor its place: that of an input read for the last time, or a new one."""
    if tensor.outside or tensor.base is not None:
        return
    for source in tensor.sources if tensor.operation in _IN_PLACE else ():
        if source.offset is None or source.shape != tensor.shape:
            continue
        if source.readers == 1 and not source.views and not source.kept:
            tensor.offset, source.offset = source.offset, None
            return
    tensor.offset = buffer.take(_padded(tensor.size))


def _free(tensor: Tensor, buffer: _Buffer) -> None:
    if tensor.offset is not None and not tensor.kept:
        buffer.give(tensor.offset, _padded(tensor.size))
        tensor.offset = None


def _padded(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
