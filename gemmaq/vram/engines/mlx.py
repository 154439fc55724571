"""mlx-lm on an Apple GPU: the cache it grows, and the arrays MLX keeps alive while it reads a prompt.

MLX allocates an array when it hands a kernel to the GPU and frees it when the GPU is done with it. It hands out work
much faster than the GPU does it, so arrays of several layers are alive at a time, until ten command buffers are under
way. `peak_bytes` replays that on sizes alone. Sources: mlx_lm/models (gemma3_text.py, cache.py), mlx_lm/generate.py,
and of MLX 0.32 transforms.cpp (MAX_ACTIVE_TASKS), backend/metal/eval.cpp and device.cpp (needs_commit).

Measured on MLX's CPU backend, which hands out work by the same rules but other numbers: the cache, and the peak of all
of it (tests/vram/engines/test_mlx.py). Not measured here, as it takes an Apple machine: METAL. With it the same replay,
given the layers of Gemma 4 31B, comes within 1 % of the four peaks that ml-explore/mlx#4487 and #4518 report for an M5
and an M3 Ultra.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from functools import cache

from gemmaq.errors import UsageError
from gemmaq.models.gemma3.config import TextConfig
from gemmaq.vram import Engine, Estimate, Load, Model

CHUNK = 2048
"""Tokens of a prompt read at a time: prefill_step_size."""
_TOGETHER = 8
"""Prompts read side by side: prefill_batch_size."""
_STEP = 256
_WIDTHS = {"bf16": 2, "f16": 2, "f32": 4}


@dataclass(frozen=True, slots=True)
class Schedule:
    """How far MLX runs ahead of the device.

    Attributes:
        kernels: a command buffer is handed over when it has more.
        elements: or when its kernels touch more array elements.
        ahead: command buffers that may be unfinished.
        fused: head dims whose attention never stores the scores of a chunk.
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
class Step:
    """One evaluation of the model.

    Attributes:
        tokens: evaluated together.
        before: tokens evaluated before.
        rooms: tokens that the cache of a global layer has room for, before and after.
        windows: the same of a sliding-window layer.
    """

    tokens: int
    before: int
    rooms: tuple[int, int]
    windows: tuple[int, int]


def steps(context: int, chunk: int, window: int) -> list[Step]:
    """A prompt of `context - 1` tokens and one new one, so that the cache holds `context` in the end.

    The last token of a prompt is evaluated alone, and mlx-lm is one token ahead of the one it gives out.
    """
    whole, rest = divmod(max(context - 2, 0), chunk)
    result: list[Step] = []
    done = room = kept = 0
    for tokens in [chunk] * whole + [rest] * bool(rest) + [1, 1]:
        rooms, windows = _grown(done, room, tokens), _rotated(done, kept, tokens, window)
        result.append(Step(tokens, done, (room, rooms), (kept, windows)))
        done, room, kept = done + tokens, rooms, windows
    return result


def _grown(done: int, room: int, tokens: int) -> int:
    """KVCache: steps of 256 tokens, after what is there if that is no multiple of 256."""
    if done + tokens <= room:
        return room
    return (done if done % _STEP else room) + -(-tokens // _STEP) * _STEP


def _rotated(done: int, kept: int, tokens: int, window: int) -> int:
    """RotatingKVCache: all of a chunk beside what its first token can see, one window when tokens come singly."""
    if tokens > 1:
        return min(kept, window - 1) + tokens
    if done >= kept and kept < window:
        return kept + min(_STEP, window - done)
    return min(kept, window)


@dataclass(frozen=True, slots=True, eq=False)
class _Array:
    elements: int
    size: int


@dataclass(frozen=True, slots=True)
class _Op:
    """A kernel or a few: the array they allocate, None if they write in place, and those they touch besides."""

    made: _Array | None
    touched: tuple[_Array, ...]
    weights: int
    kernels: int


_Pair = tuple[_Array, _Array]
"""K and V of a layer."""


@cache
def peak_bytes(
    config: TextConfig, step: Step, sequences: int, width: int, density: float, schedule: Schedule = METAL
) -> int:
    """The most bytes alive while one step is evaluated, the cache included and the weights not.

    Args:
        config: of the model.
        step: to evaluate.
        sequences: evaluated side by side.
        width: bytes of a number of the model's dtype.
        density: array elements per weight, 1 for BF16 and less where several weights share a word.
        schedule: of the device.
    """
    graph = _Graph(config, step, sequences, width, density, schedule)
    caches = [graph.cache(local) for local in config.layer_pattern]
    hidden = graph.make(step.tokens * config.hidden_size, kernels=3)
    for layer, local in enumerate(config.layer_pattern):
        graph.write_cache(hidden, *caches[layer], local)
        if step.tokens == 1 or layer < config.num_hidden_layers - 1:  # of a chunk only the caches are asked for
            hidden = graph.mlp(graph.attend(hidden, caches[layer][1], local))
    if step.tokens == 1:
        logits = graph.make(config.vocab_size, hidden, weights=config.vocab_size * config.hidden_size)
        graph.make(config.vocab_size, logits, kernels=3)
    return _replay(graph.ops, {a for old, _ in caches for a in old}, {a for _, new in caches for a in new}, schedule)


@dataclass(slots=True)
class _Graph:
    """The kernels of one step, in the order in which they are handed out."""

    config: TextConfig
    step: Step
    sequences: int
    width: int
    density: float
    schedule: Schedule
    ops: list[_Op] = field(default_factory=list)
    queries: _Array | None = None
    mask: _Array | None = None

    def array(self, elements: int, width: int = 0) -> _Array:
        """Of that many elements a sequence."""
        return _Array(self.sequences * elements, self.sequences * elements * (width or self.width))

    def make(self, made: _Array | int, *reads: _Array, weights: int = 0, kernels: int = 1) -> _Array:
        """An operation that allocates an array, or one of that many elements."""
        result = self.array(made) if isinstance(made, int) else made
        self.ops.append(_Op(result, reads, int(weights * self.density), kernels))
        return result

    def write(self, *touched: _Array, kernels: int = 1) -> None:
        """An operation that writes over its input."""
        self.ops.append(_Op(None, touched, 0, kernels))

    def cache(self, local: bool) -> tuple[_Pair, _Pair]:
        """The cache of a layer before and after the step, the same arrays where it is written in place."""
        row = self.config.num_key_value_heads * self.config.head_dim
        before, after = self.step.windows if local else self.step.rooms
        old = (self.array(before * row), self.array(before * row))
        in_place = before == after and (not local or self.step.tokens == 1)
        return old, old if in_place else (self.array(after * row), self.array(after * row))

    def write_cache(self, hidden: _Array, old: _Pair, new: _Pair, local: bool) -> None:
        """Norm, queries, and keys and values into the cache."""
        config, tokens = self.config, self.step.tokens
        row = config.num_key_value_heads * config.head_dim
        normed = self.make(tokens * config.hidden_size, hidden, kernels=2)
        wide = config.num_attention_heads * config.head_dim
        self.queries = self._heads(normed, config.num_attention_heads, tokens * wide)
        first = local and not self.step.before and tokens > 1  # then keys and values are the cache as they come
        keys = self._heads(normed, config.num_key_value_heads, new[0] if first else tokens * row)
        values = self.make(new[1] if first else tokens * row, normed, weights=config.hidden_size * row)
        for before, after, fresh in zip(old, new, (keys, values), strict=True):
            if local and after is not before:
                if not first:
                    self.make(after, before, fresh, kernels=2)
                continue
            if after is not before:
                zeros = self.array((after.elements - before.elements) // self.sequences)
                grown = (before, self.make(zeros)) if before.elements else ()
                self.make(after, *grown, kernels=2)
            self.write(after, fresh)

    def _heads(self, normed: _Array, heads: int, made: _Array | int) -> _Array:
        """Queries or keys: projected, normed head by head, which copies them where there are several, and rotated."""
        wide = heads * self.config.head_dim
        copied = heads > 1 and self.step.tokens > 1
        first = self.step.tokens * wide if copied else made
        result = self.make(first, normed, weights=self.config.hidden_size * wide)
        if copied:
            result = self.make(made, result)
        self.write(result, kernels=3)
        return result

    def attend(self, hidden: _Array, kept: _Pair, local: bool) -> _Array:
        """Attention of a layer, its projection, and the sum with `hidden`."""
        config, step = self.config, self.step
        assert self.queries is not None
        keys, values = kept
        wide = config.num_attention_heads * config.head_dim
        seen = step.windows[1] if local else step.before + step.tokens
        mask = self._mask(seen, local)
        if step.tokens == 1 or config.head_dim in self.schedule.fused:
            out = self.make(step.tokens * wide, self.queries, keys, values, *mask)
        else:
            self.write(self.queries)
            scores = self.make(config.num_attention_heads * step.tokens * seen, self.queries, keys)
            self.write(scores, *mask, kernels=2)
            out = self.make(step.tokens * wide, scores, values)
            out = self.make(step.tokens * wide, out)
        result = self.make(step.tokens * config.hidden_size, out, weights=config.hidden_size * wide)
        self.write(result, hidden, kernels=3)
        return result

    def _mask(self, seen: int, local: bool) -> tuple[_Array, ...]:
        """One bool per query and key: made once for all layers with a window, anew for every causal layer."""
        if self.step.tokens == 1:
            return ()
        if local and seen > self.config.sliding_window:
            if self.mask is None:
                other = self.make(self.array(self.step.tokens * seen, 1), kernels=3)
                self.mask = self.make(self.array(self.step.tokens * seen, 1), other)
            return (self.mask,)
        if self.config.head_dim in self.schedule.fused:
            return ()
        return (self.make(self.array(self.step.tokens * seen, 1), kernels=3),)

    def mlp(self, hidden: _Array) -> _Array:
        """The other half of a layer; MLX compiles its GELU to two kernels, of which the first makes x ** 3."""
        width, inner = self.config.hidden_size, self.config.intermediate_size
        normed = self.make(self.step.tokens * width, hidden, kernels=2)
        gate = self.make(self.step.tokens * inner, normed, weights=width * inner)
        cube = self.make(self.step.tokens * inner, gate)
        up = self.make(self.step.tokens * inner, normed, weights=width * inner)
        self.write(gate, cube)
        self.write(gate, up)
        result = self.make(self.step.tokens * width, gate, weights=width * inner)
        self.write(result, hidden, kernels=3)
        return result


def _replay(ops: list[_Op], held: set[_Array], kept: set[_Array], schedule: Schedule) -> int:
    """The most bytes alive at a time, beginning with `held`; arrays in `kept` stay for good."""
    used = [op.touched if op.made is None else (op.made, *op.touched) for op in ops]
    last = {array: at for at, arrays in enumerate(used) for array in arrays}
    alive = peak = sum(array.size for array in held)
    ahead: deque[int] = deque()
    seen: set[_Array] = set()
    freed = kernels = elements = 0
    for at, (op, arrays) in enumerate(zip(ops, used, strict=True)):
        if op.made is not None:
            alive += op.made.size
            peak = max(peak, alive)
        freed += sum(array.size for array in arrays if last[array] == at and array not in kept)
        elements += op.weights + sum(array.elements for array in arrays if array not in seen)
        seen.update(arrays)
        kernels += op.kernels
        if kernels > schedule.kernels or elements > schedule.elements:
            ahead.append(freed)
            seen.clear()
            freed = kernels = elements = 0
            if len(ahead) > schedule.ahead:
                alive -= ahead.popleft()
    return peak


def _estimate(model: Model, load: Load) -> Estimate:
    if load.kv_types[0] != load.kv_types[1]:
        raise UsageError("mlx-lm keeps keys and values in the model's own dtype", "name one type: --kv-type bf16")
    config, width = model.config, _WIDTHS[load.kv_types[0]]
    todo = steps(load.context, load.ubatch or CHUNK, config.sliding_window)
    bits = 8 * model.weights / config.parameters
    density = 1.0 if bits > 15 else round((bits + 1) / 32, 2)  # words of 32 bits, a scale and a minimum per 32 weights
    together = min(load.parallel, _TOGETHER)
    peak = max(peak_bytes(config, step, together, width, density) for step in todo[-4:-1])
    row = 2 * width * config.num_key_value_heads * config.head_dim
    kv_global = row * config.global_layers * max(step.rooms[1] for step in todo)
    kv_local = row * (config.num_hidden_layers - config.global_layers) * max(step.windows[1] for step in todo)
    return Estimate(
        weights=model.weights,
        kv_global=load.parallel * kv_global,
        kv_local=load.parallel * kv_local,
        compute=max(0, peak - together * (kv_global + kv_local)),
        notes=_NOTES if config.head_dim in METAL.fused else (*_NOTES, _SCORES),
    )


_NOTES = (
    "the peak while a prompt as long as the context is read on a Max or Ultra chip; a shorter one takes less",
    "memory of Metal itself, and freed buffers that MLX keeps for reuse, come on top",
)
_SCORES = (
    "up to M4, attention scores of a whole chunk are stored; M5 takes less, and so do smaller chunks: --ubatch 512"
)

ENGINE = Engine(
    name="mlx",
    title="mlx-lm",
    container="mlx",
    quants=("bf16", "affine8", "q8_0", "q4_0", "affine4"),
    kv_types=tuple(_WIDTHS),
    kv_default="bf16",
    sees=None,
    options=frozenset(("ubatch",)),
    estimate=_estimate,
    kv_reason="a sliding-window cache of MLX cannot be quantized",
)
