"""Keys of mmproj files."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemmaq.errors import InputError
from gemmaq.models.gemma4 import mmproj_keys, towers
from gemmaq.models.gemma4.sizes import SIZES
from gemmaq.models.gemma4.towers_config import PIECES, AudioTower, TowersConfig, VisionTower

CONFIGS: dict[str, Any] = {size.label: replace(size.towers_config, bidirectional=None) for size in SIZES}  # type: ignore[type-var]


def stored(config: TowersConfig, hidden: int = 64) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors of an mmproj file."""
    found = {}
    for name, shape in towers.shapes(config, hidden):
        arrangement = towers.in_gguf(name, shape)
        found[towers.to_gguf(name)] = arrangement.shape if arrangement else shape
    return found


@pytest.mark.parametrize("label", CONFIGS)
def test_a_config_comes_back(label: str) -> None:
    config = CONFIGS[label]
    keys = mmproj_keys.to_keys(config, 64)
    assert keys["clip.vision.projection_dim"] == 64
    assert mmproj_keys.from_keys(keys, stored(config), []) == config
    as_read = {key: np.array(value, np.float32) if isinstance(value, tuple) else value for key, value in keys.items()}
    as_read["clip.vision.attention.layer_norm_epsilon"] = float(np.float32(1e-6))
    assert mmproj_keys.from_keys(as_read, stored(config), []) == config


def test_what_keys_leave_out_is_seen_from_the_tensors() -> None:
    vision = VisionTower(num_hidden_layers=2, position_embedding_size=70, standardize=True)
    audio = AudioTower(
        num_hidden_layers=2, subsampling_conv_channels=(128, 16), conv_kernel_size=3, output_proj_dims=96
    )
    for clipped in (False, True):
        parts = replace(vision, use_clipped_linears=clipped), replace(audio, use_clipped_linears=not clipped)
        config = TowersConfig(*parts)
        assert mmproj_keys.from_keys(mmproj_keys.to_keys(config, 64), stored(config), []) == config


def test_ids_of_tokens_are_those_of_the_vocabulary() -> None:
    config = CONFIGS["E2B"]
    pieces = ["<pad>", *reversed(PIECES.values())]
    found = mmproj_keys.from_keys(mmproj_keys.to_keys(config, 64), stored(config), pieces).tokens
    assert (found.image_token_id, found.eoa_token_id) == (7, 1)
    pieces.remove("<|video|>")
    again = mmproj_keys.from_keys(mmproj_keys.to_keys(config, 64), stored(config), pieces).tokens
    assert again.video_token_id == 258884


def test_one_sense_alone_comes_back() -> None:
    for config in (TowersConfig(audio=AudioTower(num_hidden_layers=1)), TowersConfig(VisionTower(num_hidden_layers=1))):
        keys = mmproj_keys.to_keys(config, 64)
        assert mmproj_keys.from_keys(keys, stored(config), []) == config
        assert keys.get("clip.has_vision_encoder") is (True if config.vision else None)


@pytest.mark.parametrize(
    "change",
    [
        {"clip.vision.projector_type": "gemma3"},
        {"clip.vision.projector_type": "gemma4a"},
        {"clip.vision.projector_type": None},
        {"clip.audio.projector_type": "gemma4v"},
        {"clip.vision.patch_size": 0},
        {"clip.vision.block_count": 2.5},
        {"clip.vision.block_count": 1 << 20},
        {"clip.vision.embedding_length": None},
        {"clip.vision.attention.head_count": 7},
        {"clip.audio.attention.layer_norm_epsilon": "x"},
    ],
)
def test_keys_that_make_no_sense_are_refused(change: dict[str, object]) -> None:
    config = CONFIGS["E2B"]
    with pytest.raises(InputError):
        mmproj_keys.from_keys(mmproj_keys.to_keys(config, 64) | change, stored(config), [])


KEYS = st.sampled_from(sorted(mmproj_keys.to_keys(CONFIGS["E2B"], 64)))
VALUES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.sampled_from(["x", ["x"] * 3, (1, 2, 3)]))
SHAPES = st.dictionaries(st.sampled_from(["v.position_embd.weight", "a.conv1d.0.weight"]), st.tuples(st.integers()))


@given(st.dictionaries(KEYS, VALUES), SHAPES)
def test_other_keys_are_read_or_refused(change: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> None:
    try:
        mmproj_keys.from_keys(mmproj_keys.to_keys(CONFIGS["E2B"], 64) | change, shapes, [])
    except InputError as error:
        assert error.message
