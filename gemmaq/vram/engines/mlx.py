"""mlx-lm on an Apple GPU: the cache that it grows, and the peak of its arrays while it reads a prompt."""

from __future__ import annotations

from gemmaq.errors import UsageError
from gemmaq.vram import Engine, Estimate, Load, Model
from gemmaq.vram.engines.mlx_allocator import METAL, Step, peak_bytes, steps

CHUNK = 2048
"""Tokens of a prompt that are read at a time: prefill_step_size."""
_TOGETHER = 8
"""Prompts that are read side by side: prefill_batch_size."""
_WIDTHS = {"bf16": 2, "f16": 2, "f32": 4}
_FIRST, _LAST = 64, 192
"""Steps that are replayed of a prompt that takes more than both, to answer in seconds."""


def _estimate(model: Model, load: Load) -> Estimate:
    if load.kv_types[0] != load.kv_types[1]:
        raise UsageError("mlx-lm keeps keys and values in the model's own dtype", "name one type: --kv-type bf16")
    config, width = model.config, _WIDTHS[load.kv_types[0]]
    layers = config.layers
    todo = steps(load.context, load.ubatch or CHUNK, (layer.window for layer in layers))
    bits = 8 * model.weights / config.parameters
    density = 1.0 if bits > 15 else round((bits + 1) / 32, 2)  # words of 32 bits, a scale and a minimum per 32 weights
    together = min(load.parallel, _TOGETHER)
    peak = max(peak_bytes(config, step, sequences=together, width=width, density=density) for step in _replayed(todo))
    kv_global, kv_local = (
        sum(2 * width * layer.kv_width * max(step.room(layer.window).after for step in todo) for layer in kind)
        for kind in (model.global_layers, model.local_layers)
    )
    stored = any(layer.head_dim not in METAL.fused for layer in layers)
    notes = (*_NOTES, *([_SCORES] if stored else []))
    if config.normed_values:
        notes += (_EXPERTS,) if any(layer.experts for layer in layers) else (_LOW,)
    return Estimate(
        weights=model.weights,
        kv_global=load.parallel * kv_global,
        kv_local=load.parallel * kv_local,
        compute=max(0, peak - together * (kv_global + kv_local)),
        notes=notes,
    )


def _replayed(todo: list[Step]) -> list[Step]:
    """Steps among which the peak is looked for.

    It is not always in the last ones: the first chunk writes the caches anew, and a cache is copied when it grows.
    """
    return todo if len(todo) <= _FIRST + _LAST else todo[:_FIRST] + todo[-_LAST:]


_NOTES = (
    "the peak while a prompt as long as the context is read on a Max or Ultra chip; a shorter one takes less",
    "compute is what the peak takes beyond the cache in its final size, so it may fall while the total does not",
    "memory of Metal itself, and freed buffers that MLX keeps for reuse, come on top",
)
_SCORES = (
    "up to M4, attention scores of a whole chunk are stored; M5 takes less, and so do smaller chunks: --ubatch 512"
)
_LOW = "compute may be up to an eighth too low for this kind of model: measured with small ones on a CPU"
_EXPERTS = "scratch memory of experts is not measured and not counted"

ENGINE = Engine(
    name="mlx",
    title="mlx-lm",
    container="mlx",
    quants=("bf16", "affine8", "q8_0", "q4_0", "affine4"),
    kv_types=tuple(_WIDTHS),
    kv_default="bf16",
    supports_vision=False,
    vision_by_default=False,
    options=frozenset(("ubatch",)),
    estimate=_estimate,
    kv_reason="a sliding-window cache of MLX cannot be quantized",
)
