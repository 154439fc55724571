"""mmproj files of Gemma 4 in full dimensions, with a hole where their weights would be.

They are written from the dimensions alone, so that what gemmaq says of a tower's memory is compared with llama.cpp and
not with gemmaq's own names and keys. Matrices are F16, as in published files.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

Tensors = Iterator[tuple[str, tuple[int, ...]]]
_CLIPS = ("input_min", "input_max", "output_min", "output_max")


@dataclass(frozen=True)
class Tower:
    """Dimensions of a tower; without layers, of what takes pieces as they are."""

    hidden: int
    ffn: int = 0
    layers: int = 0
    heads: int = 0


@dataclass(frozen=True)
class Shape:
    """Width of a text model, and what comes before it; `clipped` if the file has bounds for its matrices."""

    text: int
    image: Tower
    sound: Tower | None = None
    clipped: bool = False


_SMALL = (Tower(768, 3072, 16, 12), Tower(1024, 4096, 12, 8), True)
_LARGE = Tower(1152, 4304, 27, 16)
SHAPES = {
    "gemma-4-E2B": Shape(1536, *_SMALL),
    "gemma-4-E4B": Shape(2560, *_SMALL),
    "gemma-4-12B": Shape(3840, Tower(3840), Tower(640)),
    "gemma-4-26B": Shape(2816, _LARGE),
    "gemma-4-31B": Shape(5376, _LARGE),
}


def write(path: Path, shape: Shape) -> int:
    """Write a header, and a hole for the weights; bytes of all tensors."""
    import numpy as np
    from gguf import GGMLQuantizationType, GGUFWriter

    writer, size, hole = GGUFWriter(path, "clip"), 0, 0
    adders: dict[type, Any] = {
        bool: writer.add_bool,
        int: writer.add_uint32,
        float: writer.add_float32,
        str: writer.add_string,
        list: writer.add_array,
    }
    for key, value in _keys(shape).items():
        adders[type(value)](f"clip.{key}", value)
    for name, rows in _tensors(shape):
        wide = len(rows) > 1 and "position" not in name and "conv" not in name.replace("conv_pw", "")
        wide &= name != "a.input_projection.weight"
        kind = GGMLQuantizationType.F16 if wide else GGMLQuantizationType.F32
        nbytes = prod(rows) * (2 if wide else 4)
        writer.add_tensor_info(name, rows, np.dtype(np.float16 if wide else np.float32), nbytes, kind)
        size, hole = size + nbytes, hole + -(-nbytes // 32) * 32
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    with path.open("r+b") as file:
        file.truncate(-(-path.stat().st_size // 32) * 32 + hole)
    return size


def _keys(shape: Shape) -> dict[str, Any]:
    keys: dict[str, Any] = {"vision.image_size": 224, "vision.patch_size": 16, "audio.num_mel_bins": 128}
    keys |= {"vision.image_mean": [0.0] * 3, "vision.image_std": [1.0] * 3}
    for side, tower, kind in (("vision", shape.image, "gemma4v"), ("audio", shape.sound, "gemma4a")):
        keys[f"has_{side}_encoder"] = tower is not None
        if tower is not None:
            keys |= {
                f"{side}.projector_type": kind if tower.layers else kind.replace("4", "4u"),
                f"{side}.projection_dim": shape.text,
                f"{side}.embedding_length": tower.hidden,
                f"{side}.feed_forward_length": tower.ffn,
                f"{side}.block_count": tower.layers,
                f"{side}.attention.head_count": tower.heads,
                f"{side}.attention.layer_norm_epsilon": 1e-6,
            }
    return keys


def _tensors(shape: Shape) -> Tensors:
    yield from (_image if shape.image.layers else _squares)(shape)
    sound = shape.sound
    if sound is not None:
        yield "mm.a.input_projection.weight", (shape.text, 1536 if sound.layers else sound.hidden)
        if sound.layers:
            yield from _sound(sound)


def _matrix(name: str, rows: int, columns: int, *, clipped: bool) -> Tensors:
    yield f"{name}.weight", (rows, columns)
    if clipped:
        yield from ((f"{name}.{clip}", (1,)) for clip in _CLIPS)


def _squares(shape: Shape) -> Tensors:
    hidden, pixels = shape.image.hidden, 3 * 48**2
    yield from (("v.patch_embd.weight", (hidden, pixels)), ("v.patch_embd.bias", (hidden,)))
    for number, size in enumerate((pixels, hidden, hidden), 1):
        yield from ((f"v.patch_norm.{number}.{part}", (size,)) for part in ("weight", "bias"))
    yield from (("v.position_embd.weight", (2, 1120, hidden)), ("mm.input_projection.weight", (shape.text, hidden)))


def _image(shape: Shape) -> Tensors:
    tower = shape.image
    hidden, ffn = tower.hidden, tower.ffn
    yield from (("v.patch_embd.weight", (hidden, 3, 16, 16)), ("v.position_embd.weight", (2, 10240, hidden)))
    yield "mm.input_projection.weight", (shape.text, hidden)
    if not shape.clipped:
        yield from ((f"v.std_{part}", (hidden,)) for part in ("bias", "scale"))
    for number in range(tower.layers):
        inside = f"v.blk.{number}."
        yield from ((f"{inside}{norm}.weight", (hidden,)) for norm in ("ln1", "ln2", "attn_post_norm", "ffn_post_norm"))
        yield from ((f"{inside}attn_{part}_norm.weight", (hidden // tower.heads,)) for part in "qk")
        sizes = {f"attn_{part}": (hidden, hidden) for part in ("q", "k", "v", "out")}
        sizes |= {"ffn_gate": (ffn, hidden), "ffn_up": (ffn, hidden), "ffn_down": (hidden, ffn)}
        for name, size in sizes.items():
            yield from _matrix(inside + name, *size, clipped=shape.clipped)


def _sound(tower: Tower) -> Tensors:
    hidden, ffn = tower.hidden, tower.ffn
    for number, (channels, seen) in enumerate(((128, 1), (32, 128))):
        yield from (
            (f"a.conv1d.{number}.weight", (channels, seen, 3, 3)),
            (f"a.conv1d.{number}.norm.weight", (channels,)),
        )
    yield from (("a.input_projection.weight", (hidden, 1024)), ("a.pre_encode.out.weight", (1536, hidden)))
    yield "a.pre_encode.out.bias", (1536,)
    for number in range(tower.layers):
        inside = f"a.blk.{number}."
        sizes = {f"attn_{part}": (hidden, hidden) for part in ("q", "k", "v", "out")}
        sizes |= {"conv_pw1": (2 * hidden, hidden), "conv_pw2": (hidden, hidden)}
        for half in ("", "_1"):
            sizes |= {f"ffn_up{half}": (ffn, hidden), f"ffn_down{half}": (hidden, ffn)}
            yield from ((f"{inside}ffn_{norm}{half}.weight", (hidden,)) for norm in ("norm", "post_norm"))
        for name, size in sizes.items():
            yield from _matrix(inside + name, *size, clipped=True)
        for norm in ("conv_norm", "norm_conv", "attn_pre_norm", "attn_post_norm", "ln2"):
            yield f"{inside}{norm}.weight", (hidden,)
        yield from ((f"{inside}conv_dw.weight", (hidden, 5)), (f"{inside}attn_k_rel.weight", (hidden, hidden)))
        yield f"{inside}per_dim_scale.weight", (hidden // tower.heads,)
