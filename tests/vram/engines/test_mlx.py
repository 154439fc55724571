"""Memory that mlx-lm allocates for small Gemma 3 models, compared with its memory model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from gemmaq.errors import UsageError
from gemmaq.models.families import require_size as published
from gemmaq.models.gemma3.config import TextConfig, pattern
from gemmaq.models.gemma3.sizes import SIZES
from gemmaq.vram import Load, Model, estimate
from gemmaq.vram.engines import mlx
from gemmaq.vram.engines.mlx_allocator import Schedule, Step, peak_bytes, steps
from runtimes import Require, need
from sparse_models import Shape

CPU = Schedule(kernels=0, elements=1 << 60, ahead=20)
"""MLX's CPU backend: ten tasks of ten dispatches each, and about five dispatches an operation (cpu/encoder.h)."""

SMALL = TextConfig(
    hidden_size=128,
    intermediate_size=512,
    num_hidden_layers=7,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=64,
    vocab_size=512,
    sliding_window=64,
    layer_pattern=pattern(7, 6),
)
TINY = replace(SMALL, hidden_size=16, intermediate_size=16, num_attention_heads=2, num_key_value_heads=1, head_dim=8)


@pytest.fixture
def mlx_model(require: Require) -> Any:
    """Config and dtype -> mlx-lm's model on the CPU, of any weights."""
    need(require, "mlx", "mlx_lm")
    import mlx.core as mx
    from mlx_lm.models import gemma3_text

    mx.set_default_device(mx.cpu)

    def make(config: TextConfig, dtype: str = "bfloat16") -> Any:
        names = "hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads head_dim"
        dimensions = {name: getattr(config, name) for name in (*names.split(), "vocab_size", "sliding_window")}
        model = gemma3_text.Model(gemma3_text.ModelArgs("gemma3_text", **dimensions))
        model.sanitize({})  # the head is the embedding
        model.set_dtype(getattr(mx, dtype))
        mx.eval(model.parameters())
        return model

    return make


@contextmanager
def fused() -> Iterator[None]:
    """On a GPU norm and rope are one kernel each; the CPU backend takes them apart. One operation stands for each."""
    import mlx.core as mx

    both = mx.fast.rms_norm, mx.fast.rope
    mx.fast.rms_norm = lambda x, weight, eps: x * (mx.array(1, x.dtype) if weight is None else weight)
    mx.fast.rope = lambda x, *_, **__: x * mx.array(1, x.dtype)
    try:
        yield
    finally:
        mx.fast.rms_norm, mx.fast.rope = both


def generate(model: Any, context: int, chunk: int) -> tuple[int, list[tuple[int, int]]]:
    """The most bytes beyond the weights, and those of global and of local caches before each of mlx-lm's steps."""
    import mlx.core as mx
    from mlx_lm.generate import generate_step

    caches, sizes = model.make_cache(), []

    def note(*_: int) -> None:
        kinds = ("KVCache", "RotatingKVCache")
        sizes.append(tuple(sum(c.nbytes for c in caches if type(c).__name__ == kind) for kind in kinds))

    prompt = mx.arange(context - 1) % 100
    mx.eval(prompt)
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    options = {"prefill_step_size": chunk, "prompt_cache": caches, "prompt_progress_callback": note}
    for _ in generate_step(prompt, model, max_tokens=1, stream=mx.default_stream(mx.cpu), **options):
        mx.synchronize()
    note()
    return mx.get_peak_memory() - before, sizes


def stages(config: TextConfig, context: int, chunk: int) -> list[Step]:
    """Steps of a model of this config."""
    return steps(context, chunk, (layer.window for layer in config.layers))


def room(config: TextConfig, step: Step, width: int = 2) -> tuple[int, int]:
    """Bytes of the caches after a step."""
    row = 2 * width * config.num_key_value_heads * config.head_dim
    local = config.num_hidden_layers - config.global_layers
    rooms = step.room(None).after, step.room(config.sliding_window).after
    return row * config.global_layers * rooms[0], row * local * rooms[1]


def estimated(config: TextConfig, context: int, chunk: int, sequences: int = 1, width: int = 2) -> int:
    """The most bytes beyond the weights, if the CPU backend runs it."""
    return max(
        peak_bytes(config, step, sequences=sequences, width=width, density=1.0, schedule=CPU)
        for step in stages(config, context, chunk)
    )


@pytest.mark.oracle
@pytest.mark.parametrize("context", [2, 3, 20, 65, 66, 67, 258, 514, 700])
@pytest.mark.parametrize("chunk", [32, 100, 256])
def test_caches_have_the_size_of_those_of_mlx_lm(context: int, chunk: int, mlx_model: Any) -> None:
    sizes = generate(mlx_model(TINY), context, chunk)[1]
    rooms = [room(TINY, step) for step in stages(TINY, context, chunk)]
    assert sizes[1:-1] == [*rooms[:-2], rooms[-1]]
    got = estimate(mlx.ENGINE, Model("tiny", TINY, 0, 0), Load(context, ("bf16", "bf16"), ubatch=chunk))
    assert (got.kv_global, got.kv_local) == tuple(map(max, zip(*sizes, strict=True)))


def furthest(measure: Callable[[], int], expected: int) -> int:
    """The most of a few measurements: on a busy machine MLX may not get as far ahead as it is allowed to."""
    peak = 0
    for _ in range(6):
        with fused():
            peak = max(peak, measure())
        if peak > 0.96 * expected:
            break
    return peak


PEAKS = {
    "below the window": (replace(SMALL, sliding_window=256), 200, 128),
    "one chunk": (SMALL, 129, 128),
    "several chunks": (SMALL, 301, 128),
    "wide heads": (replace(SMALL, head_dim=256, num_key_value_heads=1), 301, 128),
    "heads of 128": (replace(SMALL, head_dim=128), 260, 64),
    "as many KV heads": (replace(SMALL, num_key_value_heads=4), 300, 64),
    "wide MLP": (replace(SMALL, intermediate_size=2048), 200, 64),
    "wide layers": (replace(SMALL, hidden_size=1024), 200, 64),
    "long context": (replace(SMALL, num_hidden_layers=13, sliding_window=32, layer_pattern=pattern(13, 6)), 700, 64),
    "chunk of no step": (replace(SMALL, sliding_window=100), 500, 100),
}
"""Config, context, tokens of a chunk."""


@pytest.mark.oracle
@pytest.mark.parametrize("case", PEAKS)
def test_peak_is_what_mlx_allocates(case: str, mlx_model: Any) -> None:
    config, context, chunk = PEAKS[case]
    model, expected = mlx_model(config), estimated(config, context, chunk)
    assert furthest(lambda: generate(model, context, chunk)[0], expected) == pytest.approx(expected, rel=0.05)


SHAPES = {
    "V is K": Shape(8, 128, 512, 4, (2, 1), 64, 4, 4096, k_is_v=True, head_dims=(64, 128), vocabulary=512),
    "layers share caches": Shape(12, 128, 512, 4, (1, 1), 64, 4, 4096, 4, head_dims=(64, 128), vocabulary=512),
    "embeddings of every layer": Shape(
        12, 128, 512, 4, (1, 1), 64, 4, 4096, 4, double=True, width=64, head_dims=(64, 128), vocabulary=512
    ),
}


@pytest.mark.oracle
@pytest.mark.parametrize("case", SHAPES)
def test_gemma_4_has_the_caches_of_mlx_lm_and_about_its_peak(case: str, require: Require) -> None:
    """Its peak is up to an eighth higher, as the note of the estimate says."""
    need(require, "mlx", "mlx_lm")
    import mlx.core as mx
    from mlx_lm.models import gemma4_text

    mx.set_default_device(mx.cpu)
    shape = SHAPES[case]
    (head_dim, global_dim), (kv_heads, global_heads) = shape.head_dims, shape.kv_heads
    arguments = gemma4_text.ModelArgs(
        hidden_size=shape.hidden, num_hidden_layers=shape.layers, intermediate_size=shape.ffn,
        num_attention_heads=shape.heads, head_dim=head_dim, global_head_dim=global_dim, vocab_size=shape.vocabulary,
        vocab_size_per_layer_input=shape.vocabulary, num_key_value_heads=kv_heads,
        num_global_key_value_heads=global_heads, num_kv_shared_layers=shape.shared,
        hidden_size_per_layer_input=shape.width, sliding_window=shape.window, sliding_window_pattern=shape.period,
        attention_k_eq_v=shape.k_is_v, use_double_wide_mlp=shape.double,
    )  # fmt: skip
    model = gemma4_text.Model(arguments)
    model.set_dtype(mx.bfloat16)
    mx.eval(model.parameters())
    sizes: list[tuple[int, int]] = []

    def measure() -> int:
        peak, sizes[:] = generate(model, 700, 64)
        return peak

    expected = max(
        peak_bytes(shape.config, step, sequences=1, width=2, density=1.0, schedule=CPU)
        for step in steps(700, 64, (layer.window for layer in shape.config.layers))
    )
    assert 0.85 < expected / furthest(measure, expected) < 1.05
    got = estimate(mlx.ENGINE, Model("", shape.config, 0, 0), Load(700, ("bf16", "bf16"), ubatch=64))
    assert (got.kv_global, got.kv_local) == tuple(map(max, zip(*sizes, strict=True)))
    assert any("an eighth too low" in note for note in got.notes)


@pytest.mark.oracle
def test_a_model_in_f32_takes_twice_as_much(mlx_model: Any) -> None:
    model, expected = mlx_model(SMALL, "float32"), estimated(SMALL, 301, 128, width=4)
    assert furthest(lambda: generate(model, 301, 128)[0], expected) == pytest.approx(expected, rel=0.05)
    sizes = generate(model, 301, 128)[1]
    assert sizes[-1] == room(SMALL, stages(SMALL, 301, 128)[-1], width=4)


@pytest.mark.oracle
@pytest.mark.parametrize("sequences", [2, 3])
def test_prompts_are_read_side_by_side(sequences: int, mlx_model: Any) -> None:
    import mlx.core as mx
    from mlx_lm.generate import BatchGenerator

    model, caches = mlx_model(SMALL), []
    prompts = [[(first + at) % 100 for at in range(299)] for first in range(sequences)]

    def measure() -> int:
        generator = BatchGenerator(model, max_tokens=1, prefill_step_size=64, stream=mx.default_stream(mx.cpu))
        mx.clear_cache()
        before = mx.get_active_memory()
        mx.reset_peak_memory()
        generator.insert(prompts)
        while len(generator.next()[1]) < sequences:
            mx.synchronize()
            caches.append(generator.prompt_cache_nbytes)
        return int(mx.get_peak_memory() - before)

    expected = estimated(SMALL, 300, 64, sequences)
    assert furthest(measure, expected) == pytest.approx(expected, rel=0.05)
    assert max(caches) == sequences * max(sum(room(SMALL, step)) for step in stages(SMALL, 300, 64))
    got = estimate(mlx.ENGINE, Model("", SMALL, 0, 0), Load(300, ("bf16", "bf16"), ubatch=64, parallel=sequences))
    alone = estimate(mlx.ENGINE, Model("", SMALL, 0, 0), Load(300, ("bf16", "bf16"), ubatch=64))
    assert (got.kv_global, got.kv_local) == (sequences * alone.kv_global, sequences * alone.kv_local)


def at(size: str, context: int, quant_bits: float = 16, **options: Any) -> Any:
    config = published(size).config
    model = Model(size, config, int(config.parameters * quant_bits / 8), 0)
    return estimate(mlx.ENGINE, model, Load(context, ("bf16", "bf16"), **options))


def test_the_first_chunk_counts_where_it_takes_the_most() -> None:
    """In the smallest model the chunk with an empty cache does: the peak stays where it is while the cache grows."""
    short, long = at("270m", 4096, 4.5), at("270m", 8192, 4.5)
    assert short.total == long.total
    assert short.compute - long.compute == long.kv - short.kv > 0


def test_a_prompt_of_very_many_steps_is_answered_soon() -> None:
    assert at("270m", 32_768, ubatch=1).total < at("270m", 32_768, ubatch=128).total


@pytest.mark.parametrize("size", [size.name for size in SIZES])
@pytest.mark.parametrize("quant_bits", [16, 5])
def test_a_longer_context_takes_more_and_smaller_chunks_less(size: str, quant_bits: float) -> None:
    longest = published(size).config.max_position_embeddings
    contexts = (64, 512, 1024, 2048, 4096, 5000, 6144, 8192, 16_384, longest)
    totals = [at(size, context, quant_bits).total for context in contexts]
    assert totals == sorted(totals)
    assert at(size, longest, quant_bits, ubatch=512).total < totals[-1]


def test_scores_of_a_chunk_are_stored_for_wide_heads_only() -> None:
    config = published("12b").config
    more = at("12b", 32_768).compute - at("12b", 16_384).compute
    assert more == pytest.approx(2 * config.num_attention_heads * mlx.CHUNK * 16_384, rel=0.1)
    assert at("27b", 32_768).compute - at("27b", 16_384).compute < more / 4
    assert any("M5" in note for note in at("12b", 8192).notes)
    assert not any("M5" in note for note in at("27b", 8192).notes)


@pytest.mark.parametrize(
    ("load", "reason"),
    [
        (Load(512, ("q8_0", "q8_0")), "no KV cache of type 'q8_0'"),
        (Load(512, ("f32", "bf16")), "own dtype"),
        (Load(512, ("bf16", "bf16"), vision=True), "text side only"),
    ],
)
def test_what_mlx_lm_cannot_do_is_refused(load: Load, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        estimate(mlx.ENGINE, Model("tiny", TINY, 1000, 0, towers=1000), load)
