"""Names, shapes and config of the vision side."""

from __future__ import annotations

import math

import pytest

from gemmaq.errors import InputError
from gemmaq.models.gemma3 import vision
from gemmaq.models.gemma3.sizes import SIZES

NAMES = [name for name, _ in vision.shapes(vision.DEFAULT, 2560)]


@pytest.mark.parametrize("prefix", ["", "model."])
def test_every_spelling_has_one_name(prefix: str) -> None:
    for name in NAMES:
        assert vision.canonical(prefix + name) == name
    tower = NAMES[3].removeprefix("vision_tower.vision_model.")
    for spelled in (f"vision_tower.{tower}", f"vision_model.{tower}"):
        assert vision.canonical(prefix + spelled) == NAMES[3]


def test_what_is_not_needed_has_none() -> None:
    assert vision.canonical("vision_tower.vision_model.head.probe") is None
    assert vision.canonical("model.layers.0.mlp.up_proj.weight") is None


def test_names_in_an_mmproj_file_come_back() -> None:
    for name in NAMES:
        assert vision.from_gguf(vision.to_gguf(name)) == name
    assert vision.from_gguf("v.blk.0.other.weight") is None


@pytest.mark.parametrize("size", [size for size in SIZES if size.vision], ids=lambda size: size.label)
def test_shapes_add_up_to_the_published_parameters(size) -> None:
    total = sum(math.prod(shape) for _, shape in vision.shapes(vision.DEFAULT, size.config.hidden_size))
    assert total == size.vision + size.projector


def test_a_config_comes_back() -> None:
    document = {"vision_config": vision.to_hf(vision.DEFAULT), **vision.token_keys(vision.DEFAULT)}
    files = vision.processor_files(vision.DEFAULT)
    assert vision.from_hf(document, files["preprocessor_config.json"]) == vision.DEFAULT
    assert vision.from_hf({}, {}) == vision.DEFAULT


@pytest.mark.parametrize(
    "section",
    [{"patch_size": 0}, {"hidden_size": "x"}, {"image_size": True}, {"image_size": 1}, {"num_hidden_layers": 5000}],
)
def test_dimensions_that_make_no_sense_are_refused(section: dict[str, object]) -> None:
    with pytest.raises(InputError, match=r"config\.json"):
        vision.from_hf({"vision_config": section}, {})
