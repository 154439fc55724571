"""Types, arrangements and bytes of the towers' tensors."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gemmaq.models.gemma4 import towers
from gemmaq.models.gemma4.sizes import SIZES
from gemmaq.models.gemma4.towers_config import TowersConfig
from gemmaq.models.roles import Role

KNOWN = {("26B-A4B", "f16"): 1_193_035_968, ("31B", "f16"): 1_198_934_208}
KNOWN |= {("12B", "f16"): 122_029_056, ("12B", "bf16"): 175_113_216}
"""Bytes that llama.cpp prints for published files, or a store shows."""


@pytest.mark.parametrize(("label", "kind"), KNOWN)
def test_files_are_as_large_as_published(label: str, kind: str) -> None:
    size = next(size for size in SIZES if size.label == label)
    config, hidden = size.towers_config, size.config.hidden_size
    assert isinstance(config, TowersConfig)
    total = sum(
        math.prod(shape) * (4 if towers.mmproj_type(name, shape, kind) == "f32" else 2)
        for name, shape in towers.shapes(config, hidden)
    )
    assert total == KNOWN[label, kind]


@pytest.mark.parametrize("size", SIZES, ids=lambda size: size.label)
def test_shapes_are_kept_by_arrangements(size) -> None:
    for name, shape in towers.shapes(size.towers_config, size.config.hidden_size):
        for arrangement in (towers.in_gguf(name, shape), towers.channels_last(name, shape)):
            assert arrangement is None or math.prod(arrangement.shape) == math.prod(shape)
            assert arrangement is None or math.prod(arrangement.view or shape) == math.prod(shape)


def test_pixels_go_color_by_color() -> None:
    """A square of 2 x 2 pixels: red, green and blue of a pixel behind each other become four reds, greens and blues."""
    pixels = np.arange(12, dtype=np.float32)
    by_color = [0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11]
    for name in (towers.PATCH_INPUT, towers.SQUARE_INPUT):
        rows = np.stack([pixels, pixels + 12])
        arrangement = towers.in_gguf(name, (2, 12))
        assert arrangement is not None
        assert arrangement.store(rows)[1].tolist() == [12 + at for at in by_color]
    for kind in ("weight", "bias"):
        arrangement = towers.in_gguf(f"{towers.SQUARE_NORM}.{kind}", (12,))
        assert arrangement is not None and arrangement.shape == (12,)
        assert arrangement.store(pixels).tolist() == by_color


def test_numbers_without_dimensions_become_vectors() -> None:
    arrangement = towers.in_gguf("vision_tower.encoder.layers.0.mlp.up_proj.input_max", ())
    assert arrangement is not None and arrangement.shape == (1,) and not arrangement.moves
    assert towers.in_gguf("vision_tower.std_bias", (8,)) is None


def test_convolutions_have_their_channels_last_in_mlx() -> None:
    before = "audio_tower."
    found = {
        name: towers.channels_last(before + name, shape)
        for name, shape in {
            "subsample_conv_projection.layer1.conv.weight": (32, 128, 3, 3),
            "layers.0.lconv1d.depthwise_conv1d.weight": (64, 1, 5),
            "subsample_conv_projection.input_proj_linear.weight": (64, 1024),
        }.items()
    }
    assert [arrangement and arrangement.shape for arrangement in found.values()] == [(32, 3, 3, 128), (64, 5, 1), None]


@pytest.mark.parametrize(
    ("name", "shape", "types"),
    [
        (towers.PATCH_INPUT, (8, 768), ("f16", "f32", "f32")),
        (towers.SQUARE_INPUT, (8, 6912), ("f16", "f32", "f32")),
        (towers.POSITIONS, (2, 10, 8), ("f32", "f32", "f32")),
        ("audio_tower.subsample_conv_projection.input_proj_linear.weight", (8, 8), ("f32", "f32", "f32")),
        ("audio_tower.layers.0.lconv1d.linear_start.linear.weight", (16, 8), ("f16", "bf16", "q8_0")),
        ("audio_tower.layers.0.self_attn.q_proj.output_max", (), ("f32", "f32", "f32")),
    ],
)
def test_types_are_llama_cpps(name: str, shape: tuple[int, ...], types: tuple[str, ...]) -> None:
    assert tuple(towers.mmproj_type(name, shape, kind) for kind in ("f16", "bf16", "q8_0")) == types


def test_places_say_which_sense() -> None:
    kinds = {name: towers.place(name).kind for name in ("embed_audio.x", "audio_tower.x", "vision_embedder.x")}
    assert list(kinds.values()) == ["audio", "audio", "vision"]
    assert towers.place("embed_vision.x").role is Role.TOWER
    assert not towers.is_norm("vision_tower.encoder.layers.0.input_layernorm.weight")


def test_the_tokens_around_an_image_and_a_sound() -> None:
    image, sound = ("<|image>", "<image|>"), ("<|audio>", "<audio|>")
    found = {size.label: towers.markers(size.towers_config) for size in SIZES}
    assert found["E2B"] == found["12B"] == (*image, *sound) and found["31B"] == image
