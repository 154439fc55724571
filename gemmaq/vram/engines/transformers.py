"""transformers: the tensors that are alive while `generate` reads a prompt, all of it at once.

The peak is that of one forward pass over the prompt. It is the sum of what the frames of the model hold at the widest
place: a formula for each such place, from transformers' model code of text and vision tower, cache_utils.py,
masking_utils.py and torch's own operations. Measured on the CPU by following every tensor's storage
(tests/vram/engines/test_transformers.py), with transformers 5.23 and torch 2.13. Not counted is scratch inside a
kernel. Not measured, as it takes a GPU, is what torch's allocator there loses to rounding and to gaps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gemmaq.errors import UsageError
from gemmaq.models.config import Layer, TextConfig
from gemmaq.models.towers_config import Encoder
from gemmaq.vram import Engine, Estimate, Load, Model
from gemmaq.vram.engines.llama_cpp import CUDA_CONTEXT

_WIDTHS = {"bf16": 2, "f16": 2, "f32": 4}
_F32 = 4
UNMEASURED = "compute is calculated as for a decoder without experts and layer embeddings: not measured for this kind"
"""Note on models whose scratch memory was measured in no engine but llama.cpp."""
_INTEGERS = 4 * 8
"""Bytes that a token takes in tensors of ids, positions and the like."""
_FIRST, _LATER = 30, 38
"""Bytes that a word takes beyond its logit while top-k and top-p, the published defaults, choose a token."""


@dataclass(frozen=True, slots=True)
class _Prompts:
    """Prompts that are read at once.

    Attributes:
        sequences: Number of prompts, all of one length.
        tokens: Tokens of a prompt.
        width: Bytes of a number of the model's dtype.
        flash: Whether attention is torch's fused one (`sdpa`), else `eager`.
        image: Whether there is an image among the tokens: its tokens attend to each other, so no mask can be left out.
    """

    sequences: int
    tokens: int
    width: int
    flash: bool
    image: bool

    @property
    def total(self) -> int:
        """Tokens of all prompts."""
        return self.sequences * self.tokens

    @property
    def square(self) -> int:
        """Pairs of tokens of all prompts."""
        return self.sequences * self.tokens**2

    def cached(self, layers: Sequence[Layer]) -> int:
        """Bytes of keys and values of these layers, as far as they have their own."""
        return 2 * self.width * self.total * sum(layer.kv_width for layer in layers if layer.kv_from is None)


def _scratch(config: TextConfig, prompts: _Prompts) -> int:
    """Most bytes alive beyond weights and cache while prompts are read."""
    width, total = prompts.width, prompts.total
    hidden = width * total * config.hidden_size
    held = 2 * hidden + _shared(config, prompts)  # the embeddings, and the layer's own input
    places = [held + 2 * hidden + 2 * _F32 * total * config.hidden_size]
    layers = config.layers
    for number, layer in enumerate(layers, 1):
        later = prompts.cached(layers[number:])  # counted as cache, but not there yet
        places += [held + hidden + size - later for size in _attention(layer, prompts)]
        places.append(held + 2 * hidden + 3 * width * total * layer.ffn - later)
    dropped = sum(  # what sliding-window layers drop after the prompt
        max(0, prompts.tokens - layer.window) * prompts.cached([layer]) // prompts.tokens
        for layer in layers
        if layer.window is not None
    )
    places.append(prompts.sequences * config.vocab_size * (width + _FIRST))
    places.append(prompts.sequences * config.vocab_size * (width + _LATER) - dropped)
    return max(places)


def _shared(config: TextConfig, prompts: _Prompts) -> int:
    """Bytes of what all layers read: rotary embeddings, masks, ids and positions."""
    head_dims = {(layer.is_local, layer.head_dim) for layer in config.layers}
    rotations = 2 * prompts.width * prompts.total * sum(head_dim for _, head_dim in head_dims)
    if not prompts.flash:
        masks = 2 * prompts.width * prompts.square
    elif prompts.image:
        masks = 2 * prompts.square
    else:
        masks = prompts.tokens**2 * len({layer.window for layer in config.layers if _is_beyond_window(layer, prompts)})
    return rotations + masks + _INTEGERS * prompts.total


def _attention(layer: Layer, prompts: _Prompts) -> Iterator[int]:
    """Bytes that each place in a layer's attention takes beyond its input and the normed input."""
    width, total, square = prompts.width, prompts.total, prompts.square
    queries, rows = width * total * layer.query_width, _F32 * total * layer.heads
    masked = prompts.image or not prompts.flash or _is_beyond_window(layer, prompts)
    yield 4 * queries  # rotation
    yield queries + 2 * rows * layer.head_dim + rows  # norm of the queries: F32 before and after, raw keys and values
    attention = queries
    if masked and layer.heads > layer.kv_heads:
        attention += 2 * queries  # keys and values repeated for every head
    if prompts.flash:
        yield attention + queries + rows + (width * square if masked else 0)
    else:
        scores = layer.heads * square
        yield attention + max(scores * _score_bytes(width), scores * width + 2 * queries)


def _is_beyond_window(layer: Layer, prompts: _Prompts) -> bool:
    return layer.window is not None and prompts.tokens >= layer.window


def image_bytes(config: Encoder, width: int, *, flash: bool = True) -> int:
    """Most bytes alive while the vision tower encodes one image, weights not counted.

    Args:
        config: Dimensions of the tower.
        width: Bytes of a number of the model's dtype.
        flash: Whether attention is torch's fused one (`sdpa`), else `eager`.
    """
    row = width * config.patches * config.hidden_size
    attention = 6 * row  # the embeddings, the layer's input, its norm, and queries, keys and values
    if flash:
        attention += 2 * row  # the result before and after its projection
    else:
        attention += config.num_attention_heads * config.patches**2 * _score_bytes(width)
    return max(attention, 4 * row + 2 * width * config.patches * config.intermediate_size)


def _is_measured(tower: Encoder) -> bool:
    """Whether `image_bytes` holds for a tower: for those that make all images one size."""
    return not tower.most_tokens


def _score_bytes(width: int) -> int:
    """Bytes of a score of `eager` attention: softmax reads a copy in F32 and writes another."""
    return 2 * _F32 + (width if width < _F32 else 0)


def _estimate(model: Model, load: Load) -> Estimate:
    if load.kv_types[0] != load.kv_types[1]:
        raise UsageError("transformers keeps keys and values in the model's own dtype", "name one type: --kv-type bf16")
    config, width = model.config, _WIDTHS[load.kv_types[0]]
    prompts = _Prompts(load.parallel, load.context, width, load.flash_attention, load.vision)
    kv_global, kv_local = prompts.cached(model.global_layers), prompts.cached(model.local_layers)
    compute = _scratch(config, prompts)
    tower, vision_compute = model.sees if load.vision else None, 0
    if tower and _is_measured(tower):
        compute += width * (tower.patches * tower.hidden_size + tower.tokens * config.hidden_size)
        image = image_bytes(tower, width, flash=load.flash_attention)
        vision_compute = max(0, image - kv_global - kv_local - compute)
    return Estimate(
        weights=max(model.weights, width * config.parameters),
        kv_global=kv_global,
        kv_local=kv_local,
        compute=compute,
        vision_weights=width * model.towers // 2 if load.vision else 0,
        vision_compute=vision_compute,
        overhead=CUDA_CONTEXT,
        notes=tuple(_notes(model, load, width)),
    )


def _notes(model: Model, load: Load, width: int) -> Iterator[str]:
    window = max((layer.window or 0 for layer in model.local_layers), default=load.context)
    yield "the peak while a prompt as long as the context is read at once; a shorter one takes less"
    if load.context > window:
        yield f"while a prompt is read, sliding-window layers hold all of it too, thereafter {window} tokens"
    if model.weights < 2 * model.config.parameters:
        yield "quantized weights are decompressed when the model runs: they take as much as if never quantized"
    elif model.weights < width * model.config.parameters:
        yield "weights are kept in F32 like the cache"
    if model.layer_table:
        yield "the embeddings of every layer lie on the GPU, as transformers loads them"
    if model.config.normed_values:
        yield UNMEASURED
    tower = model.sees if load.vision else None
    if tower and _is_measured(tower):
        yield "an image is encoded before the text is read, in the same memory: only what goes beyond that is counted"
    elif load.vision:
        yield "scratch memory of the towers is not known for this kind and not counted"
    yield "measured on a CPU: scratch inside CUDA's kernels, and gaps in torch's memory, come on top"


ENGINE = Engine(
    name="transformers",
    title="transformers",
    container="safetensors",
    quants=("bf16", "q8_0", "q4_0"),
    kv_types=tuple(_WIDTHS),
    kv_default="bf16",
    supports_vision=True,
    vision_by_default=True,
    options=frozenset(("flash_attention",)),
    estimate=_estimate,
)
