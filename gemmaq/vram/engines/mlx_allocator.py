"""MLX's allocations while mlx-lm reads a prompt on an Apple GPU: the cache that grows, and the arrays that are alive.

MLX allocates an array when it hands a kernel to the GPU and frees it when the GPU is done with it. It hands out work
much faster than the GPU does it, so arrays of several layers are alive at a time, until ten command buffers are under
way. `peak_bytes` replays that on sizes alone. Sources: mlx_lm/models (the model's file, cache.py), mlx_lm/generate.py,
and of MLX 0.32 transforms.cpp (MAX_ACTIVE_TASKS), backend/metal/eval.cpp and device.cpp (needs_commit).

Measured on MLX's CPU backend, which hands out work by the same rules but other numbers: the cache, and the peak of all
of it (tests/vram/engines/test_mlx.py): within 5 % for dense decoders, up to an eighth too low for those that norm their
values. Not measured here, as it takes an Apple machine: METAL. With it the same replay, given the layers of a 31B
model, comes within 1 % of the four peaks that ml-explore/mlx#4487 and #4518 report for an M5 and an M3 Ultra.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache

from gemmaq.models.config import Layer, TextConfig

_STEP = 256


@dataclass(frozen=True, slots=True)
class Schedule:
    """How far MLX runs ahead of the device.

    Attributes:
        kernels: Kernels of a command buffer; it is handed over when it has more.
        elements: Array elements that the kernels of a command buffer touch; it is handed over when they touch more.
        ahead: Command buffers that may be unfinished.
        fused: Head dims whose attention never stores the scores of a chunk.
    """

    kernels: int
    elements: int
    ahead: int
    fused: frozenset[int] = frozenset()


METAL = Schedule(kernels=50, elements=51 << 20, ahead=10, fused=frozenset((64, 72, 80, 96, 128)))
"""A Max or Ultra chip; the others hand over at 40 and so run a little less far ahead.

Head dim 256 has a fused kernel too, but chips before M5 use it at most for the first chunk of the global layers, M5 for
every chunk of 1024 tokens or more (use_fallback in backend/metal/scaled_dot_product_attention.cpp).
"""


@dataclass(frozen=True, slots=True)
class Room:
    """Tokens that a layer's cache has room for, before and after a step."""

    before: int
    after: int


@dataclass(frozen=True, slots=True)
class Step:
    """One evaluation of the model.

    Attributes:
        tokens: Tokens that are evaluated together.
        before: Tokens that were evaluated before.
        rooms: Window of a layer, None for a global one, and the room of its cache; for every window of the model.
    """

    tokens: int
    before: int
    rooms: tuple[tuple[int | None, Room], ...]

    def room(self, window: int | None) -> Room:
        """Room of the cache of a layer with this window."""
        return next(room for other, room in self.rooms if other == window)


def steps(context: int, chunk: int, windows: Iterable[int | None]) -> list[Step]:
    """Steps for a prompt of `context - 1` tokens and one new one, so that the cache holds `context` in the end.

    The last token of a prompt is evaluated alone, and mlx-lm is one token ahead of the one it gives out.

    Args:
        context: Tokens of context.
        chunk: Tokens of the prompt that are read at a time.
        windows: Windows of the layers, None for global ones.
    """
    whole, rest = divmod(max(context - 2, 0), chunk)
    result: list[Step] = []
    done, rooms = 0, dict.fromkeys(windows, 0)
    for tokens in [chunk] * whole + [rest] * bool(rest) + [1, 1]:
        after = {
            window: _grown(done, room, tokens) if window is None else _rotated(done, room, tokens, window=window)
            for window, room in rooms.items()
        }
        result.append(Step(tokens, done, tuple((window, Room(rooms[window], after[window])) for window in rooms)))
        done, rooms = done + tokens, after
    return result


def _grown(done: int, room: int, tokens: int) -> int:
    """Room of a KVCache: it grows by steps of 256 tokens, cut off first where it is no multiple of 256."""
    if done + tokens <= room:
        return room
    return (done if done % _STEP else room) + -(-tokens // _STEP) * _STEP


def _rotated(done: int, room: int, tokens: int, *, window: int) -> int:
    """Room of a RotatingKVCache: a chunk and what its first token attends to, or a window for single tokens."""
    if tokens > 1:
        return min(room, window - 1) + tokens
    if done >= room and room < window:
        return room + min(_STEP, window - done)
    return min(room, window)


@dataclass(frozen=True, slots=True, eq=False)
class _Array:
    """An array in memory; compared and hashed by identity."""

    elements: int
    size: int


@dataclass(frozen=True, slots=True)
class _Op:
    """One kernel or a few.

    Attributes:
        output: Array that they allocate, None if they write in place.
        touched: Other arrays that they read or write.
        weights: Array elements of the weights that they read.
        kernels: Number of kernels.
    """

    output: _Array | None
    touched: tuple[_Array, ...]
    weights: int
    kernels: int


_Pair = tuple[_Array, _Array]
"""K and V of a layer."""


@cache
def peak_bytes(
    config: TextConfig, step: Step, *, sequences: int, width: int, density: float, schedule: Schedule = METAL
) -> int:
    """Most bytes alive while one step is evaluated, the cache included and the weights not.

    Args:
        config: Dimensions of the model.
        step: Step to evaluate.
        sequences: Sequences that are evaluated side by side.
        width: Bytes of a number of the model's dtype.
        density: Array elements of a weight, 1 for BF16 and less where several weights share a word.
        schedule: Schedule of the device.
    """
    graph = _Graph(config.hidden_size, step, sequences, width, density, schedule)
    layers = config.layers
    caches = {at: graph.cache(layer) for at, layer in enumerate(layers) if layer.kv_from is None}
    hidden = graph.make(step.tokens * config.hidden_size, kernels=3)
    given = graph.layer_inputs(hidden, len(layers) * config.layer_embedding) if config.layer_embedding else None
    last = len(layers) if step.tokens == 1 else max(caches)  # a chunk is evaluated for the caches only
    for number, layer in enumerate(layers[: last + 1]):
        if layer.kv_from is None:
            queries = graph.write_cache(layer, hidden, *caches[number])
        else:
            queries = graph.queries(layer, graph.normed(hidden))
        if number < last:
            read = caches[number if layer.kv_from is None else layer.kv_from][1]
            hidden = graph.mlp(layer, graph.attend(layer, hidden, queries, read))
            if given is not None:
                graph.add_layer_input(hidden, given, config.layer_embedding)
    if step.tokens == 1:
        logits = graph.make(config.vocab_size, hidden, weights=config.vocab_size * config.hidden_size)
        graph.make(config.vocab_size, logits, kernels=3)
    held, final = ({array for pair in caches.values() for array in pair[at]} for at in (0, 1))
    return _replay(graph.ops, held, final, schedule)


@dataclass(slots=True)
class _Graph:
    """Kernels of one step, in the order in which they are handed out."""

    hidden_size: int
    step: Step
    sequences: int
    number_bytes: int
    density: float
    schedule: Schedule
    ops: list[_Op] = field(default_factory=list)
    masks: dict[int, _Array] = field(default_factory=dict)

    def array(self, elements: int, number_bytes: int = 0) -> _Array:
        """Array of so many elements a sequence."""
        elements *= self.sequences
        return _Array(elements, elements * (number_bytes or self.number_bytes))

    def make(self, output: _Array | int, *reads: _Array, weights: int = 0, kernels: int = 1) -> _Array:
        """Operation that allocates an array, given as such or by its elements a sequence."""
        array = self.array(output) if isinstance(output, int) else output
        self.ops.append(_Op(array, reads, int(weights * self.density), kernels))
        return array

    def write(self, *touched: _Array, kernels: int = 1) -> None:
        """Operation that writes over its input."""
        self.ops.append(_Op(None, touched, 0, kernels))

    def cache(self, layer: Layer) -> tuple[_Pair, _Pair]:
        """Cache of a layer before and after the step, the same arrays where it is written in place."""
        row, room = layer.kv_width, self.step.room(layer.window)
        old = (self.array(room.before * row), self.array(room.before * row))
        in_place = room.before == room.after and (not layer.is_local or self.step.tokens == 1)
        return old, old if in_place else (self.array(room.after * row), self.array(room.after * row))

    def write_cache(self, layer: Layer, hidden: _Array, old: _Pair, new: _Pair) -> _Array:
        """Norm, queries, and keys and values into the cache; returns the queries."""
        tokens, row = self.step.tokens, layer.kv_width
        normed = self.normed(hidden)
        queries = self.queries(layer, normed)
        first = layer.is_local and not self.step.before and tokens > 1  # keys and values become the cache as they are
        keys = self._heads(normed, layer.kv_heads, layer.head_dim, new[0] if first else tokens * row)
        values = self.make(new[1] if first else tokens * row, normed, weights=self.hidden_size * row)
        for before, after, fresh in zip(old, new, (keys, values), strict=True):
            if layer.is_local and after is not before:
                if not first:
                    self.make(after, before, fresh, kernels=2)
                continue
            if after is not before:
                zeros = self.array((after.elements - before.elements) // self.sequences)
                grown = (before, self.make(zeros)) if before.elements else ()
                self.make(after, *grown, kernels=2)
            self.write(after, fresh)
        return queries

    def normed(self, hidden: _Array) -> _Array:
        """Norm of a layer's input."""
        return self.make(self.step.tokens * self.hidden_size, hidden, kernels=2)

    def queries(self, layer: Layer, normed: _Array) -> _Array:
        """Queries of a layer."""
        return self._heads(normed, layer.heads, layer.head_dim, self.step.tokens * layer.query_width)

    def layer_inputs(self, hidden: _Array, width: int) -> _Array:
        """Inputs of all layers: their embeddings of the tokens, and the projection of the usual ones, added up."""
        rows = self.make(self.step.tokens * width, kernels=2)
        result = self.make(self.step.tokens * width, hidden, weights=self.hidden_size * width, kernels=3)
        self.write(result, rows, kernels=2)
        return result

    def add_layer_input(self, hidden: _Array, given: _Array, width: int) -> None:
        """What a layer makes of its own input, added to the state."""
        gate = self.make(self.step.tokens * width, hidden, weights=self.hidden_size * width)
        self.write(gate, given, kernels=3)
        added = self.make(self.step.tokens * self.hidden_size, gate, weights=self.hidden_size * width)
        self.write(hidden, added, kernels=2)

    def _heads(self, normed: _Array, heads: int, head_dim: int, output: _Array | int) -> _Array:
        """Queries or keys: projected, normed head by head, which copies them where there are several, and rotated."""
        columns = heads * head_dim
        copied = heads > 1 and self.step.tokens > 1
        result = self.make(self.step.tokens * columns if copied else output, normed, weights=self.hidden_size * columns)
        if copied:
            result = self.make(output, result)
        self.write(result, kernels=3)
        return result

    def attend(self, layer: Layer, hidden: _Array, queries: _Array, cached: _Pair) -> _Array:
        """Attention of a layer, its projection, and the sum with `hidden`."""
        tokens, (keys, values) = self.step.tokens, cached
        columns = layer.query_width
        length = self.step.room(layer.window).after if layer.is_local else self.step.before + tokens
        mask = self._mask(layer, length)
        if tokens == 1 or layer.head_dim in self.schedule.fused:
            out = self.make(tokens * columns, queries, keys, values, *mask)
        else:
            self.write(queries)
            scores = self.make(layer.heads * tokens * length, queries, keys)
            self.write(scores, *mask, kernels=2)
            out = self.make(tokens * columns, scores, values)
            out = self.make(tokens * columns, out)
        result = self.make(tokens * self.hidden_size, out, weights=self.hidden_size * columns)
        self.write(result, hidden, kernels=3)
        return result

    def _mask(self, layer: Layer, length: int) -> tuple[_Array, ...]:
        """Mask of one bool per query and key: made once for all layers with a window, anew for every causal layer."""
        if self.step.tokens == 1:
            return ()
        elements = self.step.tokens * length
        if layer.window is not None and length > layer.window:
            if layer.window not in self.masks:
                other = self.make(self.array(elements, 1), kernels=3)
                self.masks[layer.window] = self.make(self.array(elements, 1), other)
            return (self.masks[layer.window],)
        if layer.head_dim in self.schedule.fused:
            return ()
        return (self.make(self.array(elements, 1), kernels=3),)

    def mlp(self, layer: Layer, hidden: _Array) -> _Array:
        """Feed-forward part of a layer; MLX compiles its GELU to two kernels, of which the first makes x ** 3."""
        tokens, hidden_size, ffn = self.step.tokens, self.hidden_size, layer.ffn
        normed = self.make(tokens * hidden_size, hidden, kernels=2)
        gate = self.make(tokens * ffn, normed, weights=hidden_size * ffn)
        cube = self.make(tokens * ffn, gate)
        up = self.make(tokens * ffn, normed, weights=hidden_size * ffn)
        self.write(gate, cube)
        self.write(gate, up)
        result = self.make(tokens * hidden_size, gate, weights=hidden_size * ffn)
        self.write(result, hidden, kernels=3)
        return result


def _replay(ops: list[_Op], held: set[_Array], final: set[_Array], schedule: Schedule) -> int:
    """Most bytes alive at a time, beginning with `held`; arrays in `final` are never freed."""
    used = [op.touched if op.output is None else (op.output, *op.touched) for op in ops]
    last = {array: at for at, arrays in enumerate(used) for array in arrays}
    alive = peak = sum(array.size for array in held)
    ahead: deque[int] = deque()
    buffer: set[_Array] = set()
    freed = kernels = elements = 0
    for at, (op, arrays) in enumerate(zip(ops, used, strict=True)):
        if op.output is not None:
            alive += op.output.size
            peak = max(peak, alive)
        freed += sum(array.size for array in arrays if last[array] == at and array not in final)
        elements += op.weights + sum(array.elements for array in arrays if array not in buffer)
        buffer.update(arrays)
        kernels += op.kernels
        if kernels > schedule.kernels or elements > schedule.elements:
            ahead.append(freed)
            buffer.clear()
            freed = kernels = elements = 0
            if len(ahead) > schedule.ahead:
                alive -= ahead.popleft()
    return peak
