"""transformers: the tensors that are alive while `generate` reads a prompt, all of it at once.

The peak is that of one forward pass over the prompt. It is the sum of what the frames of the model hold at the widest
place: a formula for each such place, from modeling_gemma3.py, modeling_siglip.py, cache_utils.py, masking_utils.py and
torch's own operations. Measured on the CPU by following every tensor's storage
(tests/vram/engines/test_transformers.py), with transformers 5.23 and torch 2.13. Not counted is what a kernel needs
inside. Not measured, as it takes a GPU, is what torch's allocator there loses to rounding and to gaps.
"""

from __future__ import annotations

from collections.abc import Iterator

from gemmaq.errors import UsageError
from gemmaq.models.gemma3.config import TextConfig
from gemmaq.models.gemma3.vision import DEFAULT as SIGLIP
from gemmaq.models.vision_config import VisionConfig
from gemmaq.vram import Engine, Estimate, Load, Model
from gemmaq.vram.engines.llama_cpp import CUDA_CONTEXT

_WIDTHS = {"bf16": 2, "f16": 2, "f32": 4}
_F32 = 4
_INTEGERS = 4 * 8
"""Bytes a token takes in tensors of ids, positions and the like."""
_FIRST, _LATER = 30, 38
"""Bytes that a word takes beside its logit while top-k and top-p, the published defaults, choose a token."""


def scratch_bytes(
    config: TextConfig, sequences: int, tokens: int, width: int, *, flash: bool = True, image: bool = False
) -> int:
    """The most bytes alive beside weights and cache while prompts are read.

    Args:
        config: of the text model.
        sequences: prompts, of one length.
        tokens: of each.
        width: bytes of a number of the model's dtype.
        flash: torch's fused attention (`sdpa`), else `eager`.
        image: whether there is an image among the tokens: its tokens see each other, so no mask can be left out.
    """
    return max(_places(config, sequences, tokens, width, flash=flash, image=image))


def _places(config: TextConfig, sequences: int, tokens: int, width: int, *, flash: bool, image: bool) -> Iterator[int]:
    """Bytes alive at each place that may be the widest, but for the cache of all layers."""
    total, square = sequences * tokens, sequences * tokens * tokens
    hidden = width * total * config.hidden_size
    queries = width * total * config.num_attention_heads * config.head_dim
    cached = 2 * width * total * config.num_key_value_heads * config.head_dim
    kinds = set(config.layer_pattern)
    rotations = 2 * len(kinds) * width * total * config.head_dim
    windowed = image or not flash or tokens >= config.sliding_window
    if not flash:
        masks = 2 * width * square
    elif image:
        masks = 2 * square
    else:
        masks = tokens * tokens if windowed else 0
    held = 2 * hidden + rotations + masks + _INTEGERS * total  # the embeddings, and the layer's own input

    yield held + hidden + 4 * queries  # rotation; what there is of keys and values is not yet in the cache
    for local in kinds:
        masked = windowed if local else image or not flash
        last = config.num_hidden_layers - config.layer_pattern[::-1].index(local)
        later = (config.num_hidden_layers - last) * cached
        # norm of the queries, in F32 before and after, beside raw keys and values
        rows = _F32 * total * config.num_attention_heads
        yield held + hidden + queries + 2 * rows * config.head_dim + rows - later
        attention = held + hidden + queries - later
        if masked and config.num_attention_heads > config.num_key_value_heads:
            attention += 2 * queries  # keys and values repeated for every head
        if flash:
            yield attention + queries + rows + (width * square if masked else 0)
        else:
            scores = config.num_attention_heads * square
            yield attention + max(scores * _score_bytes(width), scores * width + 2 * queries)

    yield held + 2 * hidden + 3 * width * total * config.intermediate_size
    yield held + 2 * hidden + 2 * _F32 * total * config.hidden_size
    beyond = max(0, tokens - config.sliding_window) * cached // tokens  # what sliding-window layers drop thereafter
    local_layers = config.num_hidden_layers - config.global_layers
    yield sequences * config.vocab_size * (width + _FIRST)
    yield sequences * config.vocab_size * (width + _LATER) - local_layers * beyond


def image_bytes(config: VisionConfig, width: int, *, flash: bool = True) -> int:
    """The most bytes alive while the vision tower sees one image, weights aside.

    Args:
        config: of the tower.
        width: bytes of a number of the model's dtype.
        flash: torch's fused attention (`sdpa`), else `eager`.
    """
    row = width * config.patches * config.hidden_size
    attention = 6 * row  # the embeddings, the layer's input, its norm, and queries, keys and values
    if flash:
        attention += 2 * row  # what it gives out, before and after its projection
    else:
        attention += config.num_attention_heads * config.patches**2 * _score_bytes(width)
    return max(attention, 4 * row + 2 * width * config.patches * config.intermediate_size)


def _score_bytes(width: int) -> int:
    """Bytes of a score of `eager` attention: softmax reads a copy in F32 and writes another."""
    return 2 * _F32 + (width if width < _F32 else 0)


def _estimate(model: Model, load: Load) -> Estimate:
    if load.kv_types[0] != load.kv_types[1]:
        raise UsageError("transformers keeps keys and values in the model's own dtype", "name one type: --kv-type bf16")
    config, width, flash = model.config, _WIDTHS[load.kv_types[0]], load.flash_attention
    dense = width * config.parameters
    cached = 2 * width * load.parallel * load.context * config.num_key_value_heads * config.head_dim
    local_layers = config.num_hidden_layers - config.global_layers
    compute = scratch_bytes(config, load.parallel, load.context, width, flash=flash, image=load.vision)
    seen = 0
    if load.vision:
        compute += width * (SIGLIP.patches * SIGLIP.hidden_size + SIGLIP.tokens * config.hidden_size)
        seen = image_bytes(SIGLIP, width, flash=flash) - cached * config.num_hidden_layers - compute
    return Estimate(
        weights=max(model.weights, dense),
        kv_global=cached * config.global_layers,
        kv_local=cached * local_layers,
        compute=compute,
        vision_weights=width * model.vision // 2 if load.vision else 0,
        vision_compute=max(0, seen),
        overhead=CUDA_CONTEXT,
        notes=tuple(_notes(model, load, dense)),
    )


def _notes(model: Model, load: Load, dense: int) -> Iterator[str]:
    window = model.config.sliding_window
    yield "the peak while a prompt as long as the context is read at once; a shorter one takes less"
    if load.context > window:
        yield f"while a prompt is read, sliding-window layers hold all of it too, thereafter {window} tokens"
    if model.weights < 2 * model.config.parameters:
        yield "quantized weights are decompressed when the model runs: they take as much as if never quantized"
    elif model.weights < dense:
        yield "weights are kept in F32 like the cache"
    if load.vision:
        yield "an image is seen before the text is read, in the same memory: only what goes beyond is counted for it"
    yield "measured on a CPU: scratch inside CUDA's kernels, and gaps in torch's memory, come on top"


ENGINE = Engine(
    name="transformers",
    title="transformers",
    container="safetensors",
    quants=("bf16", "q8_0", "q4_0"),
    kv_types=tuple(_WIDTHS),
    kv_default="bf16",
    sees=True,
    options=frozenset(("flash_attention",)),
    estimate=_estimate,
)
