"""Names, shapes and config of the vision side."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from gemmaq.errors import InputError
from gemmaq.models.gemma3 import towers
from gemmaq.models.gemma3.sizes import SIZES

NAMES = [name for name, _ in towers.shapes(towers.DEFAULT, 2560)]


@pytest.mark.parametrize("prefix", ["", "model.", "model.model."])
def test_every_spelling_has_one_name(prefix: str) -> None:
    for name in NAMES:
        assert towers.canonical(prefix + name) == name
    tower = NAMES[3].removeprefix("vision_tower.vision_model.")
    for spelled in (f"vision_tower.{tower}", f"vision_model.{tower}"):
        assert towers.canonical(prefix + spelled) == NAMES[3]


def test_what_is_not_needed_has_none() -> None:
    assert towers.canonical("vision_tower.vision_model.head.probe") is None
    assert towers.canonical("model.layers.0.mlp.up_proj.weight") is None


@pytest.mark.parametrize("size", [size for size in SIZES if size.towers], ids=lambda size: size.label)
def test_shapes_add_up_to_the_published_parameters(size) -> None:
    total = sum(math.prod(shape) for _, shape in towers.shapes(towers.DEFAULT, size.config.hidden_size))
    assert total == size.towers + size.projector


def test_a_config_comes_back() -> None:
    document = {"vision_config": towers.to_hf_config(towers.DEFAULT), **towers.token_keys(towers.DEFAULT)}
    files = towers.processor_files(towers.DEFAULT)
    assert towers.from_hf(document, files["preprocessor_config.json"]) == towers.DEFAULT
    assert towers.from_hf({}, {}) == towers.DEFAULT


@pytest.mark.parametrize(
    "section",
    [{"patch_size": 0}, {"hidden_size": "x"}, {"image_size": True}, {"image_size": 1}, {"num_hidden_layers": 5000}],
)
def test_dimensions_that_make_no_sense_are_refused(section: dict[str, object]) -> None:
    with pytest.raises(InputError, match=r"config\.json"):
        towers.from_hf({"vision_config": section}, {})


@pytest.mark.parametrize(
    "config", [towers.DEFAULT, replace(towers.DEFAULT, image_size=112, tokens=16)], ids=["usual", "small"]
)
def test_a_vision_config_comes_back(config: Any) -> None:
    keys = towers.to_keys(config, 2560)
    assert keys["clip.vision.projection_dim"] == 2560
    found = towers.from_keys(keys, {}, [])
    ids = {name: getattr(config, name) for name in ("image_token", "boi_token", "eoi_token")}
    assert replace(found, **ids) == config


@pytest.mark.parametrize(
    "change",
    [
        {"clip.projector_type": "llava"},
        {"clip.vision.patch_size": 0},
        {"clip.vision.image_size": 14.0},
        {"clip.vision.projector.scale_factor": 0},
    ],
)
def test_vision_keys_that_make_no_sense_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(InputError):
        towers.from_keys(towers.to_keys(towers.DEFAULT, 2560) | change, {}, [])


def test_the_tokens_around_an_image() -> None:
    assert towers.markers(towers.DEFAULT) == ("<start_of_image>", "<end_of_image>")
