"""Graphs that llama.cpp computes for an image and for a sound, as far as memory is concerned.

An image keeps its shape and becomes squares of pixels, a token for each, or patches whose results are pooled to tokens
behind a transformer without a cache. Every matrix clips its input and its output. Source of the order of operations:
the graphs that mtmd reserves memory for.
"""

from __future__ import annotations

from gemmaq.models.towers_config import Encoder
from gemmaq.vram.engines.cached_attention import matrix, norm
from gemmaq.vram.engines.ggml_allocator import OUTSIDE, Graph, Tensor, leaf, result, view

_F16 = 2
_KERNEL = 3
_CHUNK, _PAST = 12, 12
"""Frames of sound that attend together, and frames before them that they see."""


def image(tower: Encoder, hidden: int, tokens: int, *, flash: bool) -> Graph:
    """Graph of an image.

    Args:
        tower: Encoder of images.
        hidden: Width of the text model.
        tokens: Tokens that the image becomes.
        flash: Whether attention is computed without storing its scores.
    """
    graph = Graph()
    patches = tokens * tower.patches // tower.tokens
    pixels = leaf(patches * tower.inputs)
    if not tower.num_hidden_layers:
        graph.expand(matrix(_squares(tower, pixels), hidden))
        return graph
    places = leaf(patches), leaf(patches)
    state = _placed(_patches(tower, pixels), places)
    for _ in range(tower.num_hidden_layers):
        attended = _clipped(_attended(graph, tower, norm(state), places, flash=flash), tower.hidden_size)
        state = result("add", state.shape, norm(attended), state)
        normed = norm(state)
        gate, up = (_clipped(normed, tower.intermediate_size) for _ in range(2))
        fed = _clipped(result("glu", up.shape, gate, up), tower.hidden_size)
        state = result("add", state.shape, state, norm(fed))
    turned = result("cont", (patches, tower.hidden_size), view(state, patches, tower.hidden_size))
    pooled = result("pool", (tokens, tower.hidden_size), turned)
    pooled = result("cont", (tower.hidden_size, tokens), view(pooled, tower.hidden_size, tokens))
    for operation in ("scale", "rms_norm"):
        pooled = result(operation, pooled.shape, pooled)
    graph.expand(_clipped(pooled, hidden))
    return graph


def _squares(tower: Encoder, pixels: Tensor) -> Tensor:
    """State of squares of pixels, each of which becomes a token."""
    tokens = pixels.shape[0] // tower.inputs
    state = result("im2col", (tower.inputs, tokens), leaf(tower.inputs), pixels)
    state = matrix(_shifted(state), tower.hidden_size)
    state = _shifted(result("add", state.shape, state, OUTSIDE))
    state = _shifted(_placed(state, (leaf(tokens), leaf(tokens))))
    return result("rms_norm", state.shape, state)


def _shifted(state: Tensor) -> Tensor:
    """Norm with a weight and a bias."""
    scaled = result("mul", state.shape, result("norm", state.shape, state), OUTSIDE)
    return result("add", state.shape, scaled, OUTSIDE)


def _patches(tower: Encoder, pixels: Tensor) -> Tensor:
    """State of the patches, by a convolution whose kernel is a patch."""
    shape = (pixels.shape[0] // tower.inputs, tower.hidden_size)
    columns = result("im2col", (tower.inputs, shape[0]), result("scale", pixels.shape, pixels), width=_F16)
    state = result("cont", shape, view(result("matrix", shape, columns, OUTSIDE), *shape))
    return result("cont", shape[::-1], view(state, *shape[::-1]))


def _placed(state: Tensor, places: tuple[Tensor, Tensor]) -> Tensor:
    """State with the embeddings of its columns and rows in the image."""
    for place in places:
        state = result("add", state.shape, state, result("get_rows", state.shape, view(OUTSIDE), place))
    return state


def _attended(graph: Graph, tower: Encoder, normed: Tensor, places: tuple[Tensor, Tensor], *, flash: bool) -> Tensor:
    """Attention of all patches over all patches: [hidden size, patches]."""
    hidden, patches = normed.shape
    shape = (hidden // tower.num_attention_heads, tower.num_attention_heads, patches)
    queries, keys, values = (view(_clipped(normed, hidden), *shape) for _ in range(3))
    queries, keys = (_rotated(norm(heads), places) for heads in (queries, keys))
    values = result("rms_norm", shape, values)
    for heads in (queries, keys, values):
        graph.expand(heads)
    size, count, _ = shape
    queries, keys = (view(heads, size, patches, count) for heads in (queries, keys))
    if flash:
        keys, values = (result("cast", heads.shape, heads, width=_F16) for heads in (keys, view(values, *keys.shape)))
        return view(result("flash", shape, queries, keys, values), hidden, patches)
    turned = result("cont", (patches, size, count), view(values, patches, size, count))
    scores = result("matrix", (patches, patches, count), keys, queries)
    scores = result("soft_max", scores.shape, scores)
    mixed = result("matrix", (size, patches, count), turned, scores)
    return result("cont", (hidden, patches), view(mixed, *shape))


def _rotated(heads: Tensor, places: tuple[Tensor, Tensor]) -> Tensor:
    for place in places:
        heads = result("rope", heads.shape, heads, place)
    return heads


def _clipped(state: Tensor, rows: int) -> Tensor:
    """Product of a weight matrix with so many rows and the state, input and output clipped."""
    out = matrix(result("clamp", state.shape, state), rows)
    return result("clamp", out.shape, out)


def sound(tower: Encoder, hidden: int, frames: int) -> Graph:
    """Graph of a sound; of a tower, only the convolutions before its layers, which take far less.

    Args:
        tower: Encoder of sound.
        hidden: Width of the text model.
        frames: Frames of the sound.
    """
    graph = Graph()
    raw = leaf(frames, tower.inputs)
    state = result("cont", (tower.inputs, frames), view(raw, tower.inputs, frames))
    if not tower.channels:
        graph.expand(matrix(result("rms_norm", state.shape, state), hidden))
        return graph
    bands, seen = tower.inputs, 1
    for channels in tower.channels:
        bands, frames = -(-bands // 2), -(-frames // 2)
        shape = (bands * frames, channels)
        columns = result("im2col", (_KERNEL**2 * seen, shape[0]), state, width=_F16)
        state = result("matrix", shape, columns, OUTSIDE)
        for _ in range(2):
            state = result("cont", shape, view(state, *shape))
        state = result("mul", shape, result("norm", shape, state), OUTSIDE)
        state = result("relu", shape, result("cont", shape, view(state, *shape)))
        seen = channels
    state = result("cont", (bands * seen, frames), view(state, bands * seen, frames))
    graph.expand(_clipped(state, tower.hidden_size))
    for given in (leaf(tower.hidden_size, _PAST + 1), leaf(_CHUNK + _PAST, _CHUNK, -(-frames // _CHUNK))):
        graph.expand(given)  # positions and mask of the layers
    return graph
