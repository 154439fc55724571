"""Keys of an mmproj file with the towers: those of llama.cpp's converter, and `clip.use_gelu`.

Without it llama.cpp computes x * sigmoid(1.702 x) in the vision tower, in place of the GELU that it was trained with.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from gemmaq.errors import InputError
from gemmaq.models import gguf_numbers, hf_values
from gemmaq.models.gemma4.tower_names import CLIPS
from gemmaq.models.gemma4.towers_config import (
    FFN_FACTOR,
    MEL_BINS,
    PIECES,
    AudioTower,
    Patches,
    Tokens,
    TowersConfig,
    VisionTower,
    Waves,
)
from gemmaq.models.gemma4.towers_hf import checked

_UNUSED_SIZE = 224
"""Side of an image: llama.cpp wants the key and does not use it."""
_VISION = {
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "block_count": "num_hidden_layers",
    "attention.head_count": "num_attention_heads",
    "patch_size": "patch_size",
    "attention.layer_norm_epsilon": "rms_norm_eps",
}
_AUDIO = {key: name for key, name in _VISION.items() if name not in ("intermediate_size", "patch_size")}
_EMBEDDER = {
    "embedding_length": "mm_embed_dim",
    "patch_size": "patch_size",
    "attention.layer_norm_epsilon": "rms_norm_eps",
}
_WAVES = {"embedding_length": "audio_embed_dim", "attention.layer_norm_epsilon": "rms_norm_eps"}
_NO_LAYERS = dict.fromkeys(("feed_forward_length", "block_count", "attention.head_count"), 0)
_TYPES: dict[str, dict[str, tuple[type, dict[str, str]]]] = {
    "vision": {"gemma4v": (VisionTower, _VISION), "gemma4uv": (Patches, _EMBEDDER)},
    "audio": {"gemma4a": (AudioTower, _AUDIO), "gemma4ua": (Waves, _WAVES)},
}
"""Projector type -> what it stands for, and its keys and fields."""


def to_keys(config: TowersConfig, text_hidden: int) -> dict[str, Any]:
    """Keys of an mmproj file, with prefix."""
    keys: dict[str, Any] = {}
    for sense, tower in (("vision", config.vision), ("audio", config.audio)):
        if tower is None:
            continue
        kind, (_, names) = next(entry for entry in _TYPES[sense].items() if entry[1][0] is type(tower))
        described: dict[str, Any] = {"projector_type": kind, "projection_dim": text_hidden}
        described |= {} if isinstance(tower, (VisionTower, AudioTower)) else _NO_LAYERS
        described |= {key: getattr(tower, name) for key, name in names.items()}
        if sense == "vision":
            described |= {"image_size": _UNUSED_SIZE, "image_mean": config.image_mean, "image_std": config.image_std}
            keys["clip.use_gelu"] = True
        else:
            described["num_mel_bins"] = MEL_BINS
        if isinstance(tower, AudioTower):
            described["feed_forward_length"] = FFN_FACTOR * tower.hidden_size
        keys[f"clip.has_{sense}_encoder"] = True
        keys |= {f"clip.{sense}.{key}": value for key, value in described.items()}
    return keys


def from_keys(keys: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], pieces: Sequence[str]) -> TowersConfig:
    """Config of the towers from an mmproj file; what its keys leave out follows from its tensors.

    Args:
        keys: All keys of the file.
        shapes: Shapes of its tensors by name.
        pieces: The vocabulary of the text model.

    Raises:
        InputError: A key is missing or of the wrong kind, or the projector is another one.
    """
    found: dict[str, Any] = {}
    for sense, types in _TYPES.items():
        kind = keys.get(f"clip.{sense}.projector_type")
        if kind is None and not keys.get(f"clip.has_{sense}_encoder"):
            continue
        if not isinstance(kind, str) or kind not in types:
            raise InputError(f"the projector for {sense} is of the type {kind!r:.60}, not {' or '.join(types)}")
        tower, names = types[kind]
        values = {name: keys.get(f"clip.{sense}.{key}") for key, name in names.items()}
        missing = [key for key, name in names.items() if values[name] is None]
        if missing:
            raise InputError(f"GGUF key clip.{sense}.{missing[0]} is missing")
        if isinstance(values["rms_norm_eps"], float):
            values["rms_norm_eps"] = float(f"{values['rms_norm_eps']:.7g}")
        found[sense] = hf_values.fill(tower, values | _from_shapes(tower, shapes), f"GGUF keys clip.{sense}: ")
    found |= gguf_numbers.colors(keys)
    ids = {name: pieces.index(piece) for name, piece in PIECES.items() if piece in pieces}
    return checked(TowersConfig(**found, tokens=hf_values.fill(Tokens, ids, "the vocabulary: ")))


def _from_shapes(tower: type, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Fields of a tower that follow from the shapes of its tensors alone: no key has them."""

    def length(name: str, axis: int) -> int | None:
        shape = shapes.get(name, ())
        return shape[axis] if len(shape) > axis else None

    def clipped(layers: str) -> bool:
        return any(name.startswith(layers) and name.endswith(CLIPS) for name in shapes)

    if tower is VisionTower:
        return {
            "position_embedding_size": length("v.position_embd.weight", 1),
            "standardize": "v.std_scale" in shapes,
            "use_clipped_linears": clipped("v.blk."),
        }
    if tower is AudioTower:
        channels = length("a.conv1d.0.weight", 0), length("a.conv1d.1.weight", 0)
        return {
            "subsampling_conv_channels": channels if all(channels) else None,
            "conv_kernel_size": length("a.blk.0.conv_dw.weight", 1),
            "output_proj_dims": length("a.pre_encode.out.weight", 0),
            "use_clipped_linears": clipped("a.blk."),
        }
    return {"mm_posemb_size": length("v.position_embd.weight", 1)} if tower is Patches else {}


_CLAMPS = "v.clamp_data"
"""Tensor of Ollama's converter that repeats the bounds of all matrices."""


def built_in(keys: Mapping[str, Any], names: Collection[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Keys of an mmproj file, and names in one, of towers in the model's own file; empty if there are none.

    Ollama's converter calls their tensors as llama.cpp's does, and begins their keys with the architecture.
    """
    found: dict[str, Any] = {}
    for sense, kind in (("vision", "gemma4v"), ("audio", "gemma4a")):
        if keys.get(f"gemma4.{sense}.block_count"):
            prefix = f"gemma4.{sense}."
            found |= {f"clip.{sense}.{key.removeprefix(prefix)}": keys[key] for key in keys if key.startswith(prefix)}
            found |= {f"clip.{sense}.projector_type": kind, f"clip.has_{sense}_encoder": True}
    inside = [name for name in names if name.startswith(("v.", "a.", "mm.")) and name != _CLAMPS] if found else []
    return found, {name: name for name in inside}
