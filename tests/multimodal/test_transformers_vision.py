"""Multimodal folders for transformers: compressed-tensors with the vision side untouched, BF16 equal to the source."""

from __future__ import annotations

import filecmp
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

import seeing
from inprocess import run
from runtimes import Require, need

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore:You passed `quantization_config`")]

PROCESSOR = ["preprocessor_config.json", "processor_config.json"]
VISION = ("model.vision_tower.", "model.multi_modal_projector.")


@pytest.fixture(scope="module")
def inputs(processor: Any) -> list[Any]:
    """A text, and a prompt with an image."""
    prompt = "<start_of_image>What is it?"
    return [
        [2, 9259, 236764, *range(5000, 5030)],
        processor(text=prompt, images=[seeing.picture(4)], return_tensors="pt"),
    ]


@pytest.fixture
def exact(int4: Path, dense: Any) -> Iterator[Any]:
    """The multimodal model in f32, the weights of its layers those of the int4 GGUF, the rest those of the source."""
    embedding = dense.model.language_model.embed_tokens.weight
    own = embedding.data
    with seeing.lent_text(dense, seeing.text(int4 / "gguf")):
        embedding.data = own
        yield dense


def untouched(model: Any, source: Any) -> int:
    """How many tensors of the vision side there are, all of them equal bit for bit."""
    import torch

    ours, theirs = (
        {name: weights for name, weights in m.state_dict().items() if name.startswith(VISION)} for m in (model, source)
    )
    assert ours.keys() == theirs.keys()
    assert [name for name, weights in theirs.items() if not torch.equal(ours[name], weights)] == []
    return len(ours)


def distance(ours: Any, theirs: Any, given: Any) -> float:
    """The largest difference of a logit, relative to the spread of all; the same tokens are at the top."""
    a, b = seeing.logits(ours, given), seeing.logits(theirs, given)
    assert a.argmax(-1).tolist() == b.argmax(-1).tolist()
    return float(np.abs(a - b).max() / np.ptp(b))


def test_compressed_tensors_see_and_read_as_the_gguf(
    require: Require, int4: Path, exact: Any, inputs: list[Any]
) -> None:
    need(require, "compressed_tensors")
    model = seeing.load(int4 / "safetensors")
    assert all(distance(model, exact, given) < 1e-5 for given in inputs)
    assert untouched(model, exact) == seeing.TENSORS


def test_compressed_tensors_dequantized_while_they_are_read(
    require: Require, int4: Path, exact: Any, inputs: list[Any]
) -> None:
    """transformers multiplies code and scale in BF16 here."""
    need(require, "compressed_tensors")
    import torch
    from transformers import CompressedTensorsConfig

    model = seeing.load(int4 / "safetensors", quantization_config=CompressedTensorsConfig(dequantize=True))
    assert untouched(model, exact) == seeing.TENSORS
    parameters = dict(exact.named_parameters())
    layers = {name: weights for name, weights in model.named_parameters() if "_proj.weight" in name}
    layers = {name: weights for name, weights in layers.items() if not name.startswith(VISION)}
    assert len(layers) == 7 * 7
    for name, weights in layers.items():
        assert torch.equal(weights, parameters[name].bfloat16().float()), name
    for given in inputs:
        assert np.isfinite(seeing.logits(model, given)).all()


def test_bf16_is_the_source(eye: Path, dense: Any, inputs: list[Any], tmp_path: Path) -> None:
    run("convert", eye, "--to", "safetensors", "--quant", "bf16", "-o", tmp_path / "out")
    ours, source = (load_file(folder / "model.safetensors") for folder in (tmp_path / "out", eye))
    assert ours.keys() == source.keys()
    assert all(ours[name].dtype == weights.dtype and ours[name].equal(weights) for name, weights in source.items())
    same, *different = filecmp.cmpfiles(eye, tmp_path / "out", [*PROCESSOR, "tokenizer.json"], shallow=False)
    assert len(same) == 3 and different == [[], []]
    model = seeing.load(tmp_path / "out")
    for given in inputs:
        np.testing.assert_array_equal(seeing.logits(model, given), seeing.logits(dense, given))
    ours_config, config = model.config.to_dict(), dense.config.to_dict()
    for name in ("mm_tokens_per_image", "image_token_index", "boi_token_index", "eoi_token_index", "eos_token_id"):
        assert ours_config[name] == config[name], name
    for side in ("text_config", "vision_config"):
        differing = {key for key in config[side] if ours_config[side].get(key) != config[side][key]}
        assert differing <= {"dtype", "architectures", "eos_token_id"}, side
