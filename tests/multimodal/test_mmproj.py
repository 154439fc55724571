"""The mmproj file: the same from every layout of names, and that of llama.cpp's converter where it makes one."""

from __future__ import annotations

import filecmp
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader

import seeing
from gemmaq.models.gemma3 import towers
from inprocess import run
from oracles import read_gguf, reference_converter
from runtimes import Require
from synthetic import bf16, write_safetensors

KINDS = ("f16", "bf16", "f32")
OURS_ALONE = {"general.license", "general.license.link"}
"""A file that is passed on says what it is under."""
THEIRS_ALONE = {"general.sampling.top_k", "general.sampling.top_p"}
"""Nothing is sampled from an encoder of images."""
OTHERWISE = {"general.size_label"}
"""We say the size of the model; the converter counts the weights in the file."""


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Path]:
    """A folder for files of some hundred MB."""
    yield tmp_path
    shutil.rmtree(tmp_path, ignore_errors=True)


def reference(require: Require, folder: Path, out: Path, kind: str, *options: str) -> Path:
    """What llama.cpp's converter makes of a folder."""
    converter = reference_converter()
    require(converter is not None, "the reference converter ($GEMMAQ_REFERENCE_CONVERTER)")
    command = [str(converter), str(folder), "--outtype", kind, "--outfile", str(out), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return out


def keys_of(path: Path) -> dict[str, tuple[int, Any]]:
    """Key -> type and value, arrays as lists."""
    return {
        key: (int(field.types[0]), field.contents())
        for key, field in GGUFReader(path).fields.items()
        if not key.startswith("GGUF.")
    }


@pytest.mark.parametrize("kind", KINDS)
def test_every_layout_gives_the_same_files(eyes: dict[str, Path], scratch: Path, kind: str) -> None:
    for layout, folder in eyes.items():
        run("convert", folder, "--quant", kind, "--mmproj", kind, "-o", scratch / layout)
    names = [f"gemma-3-eye-{kind.upper()}.gguf", f"mmproj-gemma-3-eye-{kind.upper()}.gguf"]
    for layout in eyes:
        same, *different = filecmp.cmpfiles(scratch / "original", scratch / layout, names, shallow=False)
        assert (same, different) == (names, [[], []]), layout


def same_mmproj(ours: Path, theirs: Path) -> int:
    """Compare two files tensor by tensor and key by key; the number of tensors."""
    mine, other = ({t.name: t for t in GGUFReader(path).tensors} for path in (ours, theirs))
    assert mine.keys() == other.keys()
    for name, tensor in other.items():
        assert (mine[name].tensor_type, mine[name].shape.tolist()) == (tensor.tensor_type, tensor.shape.tolist()), name
        assert np.array_equal(mine[name].data.view(np.uint8), tensor.data.view(np.uint8)), name
    ours_keys, their_keys = keys_of(ours), keys_of(theirs)
    assert ours_keys.keys() - their_keys.keys() == OURS_ALONE
    assert their_keys.keys() - ours_keys.keys() == THEIRS_ALONE
    differing = {key for key in ours_keys.keys() & their_keys.keys() if ours_keys[key] != their_keys[key]}
    assert differing <= OTHERWISE
    return len(mine)


@pytest.mark.slow
@pytest.mark.oracle
@pytest.mark.parametrize(("model", "kind"), [("eye", "f32"), ("near", "bf16")])
def test_it_is_that_of_the_reference_converter(
    require: Require, request: pytest.FixtureRequest, scratch: Path, model: str, kind: str
) -> None:
    folder: Path = request.getfixturevalue(model)
    run("convert", folder, "--quant", "bf16", "--mmproj", kind, "-o", scratch / "ours")
    ours = seeing.projector(scratch / "ours")
    theirs = reference(require, folder, scratch / "theirs.gguf", kind, "--mmproj")
    assert same_mmproj(ours, theirs) == seeing.TENSORS
    scale = keys_of(ours).get("clip.vision.projector.scale_factor", (4, 4))[1]
    assert scale == {"eye": 4, "near": 2}[model]


@pytest.mark.slow
@pytest.mark.oracle
def test_the_text_beside_it_is_that_of_the_reference_converter(require: Require, eye: Path, scratch: Path) -> None:
    run("convert", eye, "--quant", "f16", "-o", scratch / "ours")
    theirs = reference(require, eye, scratch / "theirs.gguf", "f16")
    (our_keys, our_tensors), (their_keys, their_tensors) = read_gguf(seeing.text(scratch / "ours")), read_gguf(theirs)
    assert our_tensors == their_tensors
    differing = {key for key in our_keys.keys() | their_keys.keys() if our_keys.get(key) != their_keys.get(key)}
    assert differing == OURS_ALONE
    tokens = our_keys["tokenizer.ggml.tokens"][1]
    assert isinstance(tokens, list) and len(tokens) == 262208
    assert tokens[seeing.IMAGE_TOKEN :][:2] == ["<image_soft_token>", "[PAD262145]"]
    assert [tokens[at] for at in (seeing.BEGIN, seeing.END)] == ["<start_of_image>", "<end_of_image>"]


WRITTEN = ("config.json", "preprocessor_config.json", "processor_config.json")


def full_tower(folder: Path, text: Path) -> Path:
    """A folder with the tower of 4B, 12B and 27B in front of a small text model."""
    folder.mkdir()
    for path in text.iterdir():
        if path.name not in WRITTEN and path.suffix != ".safetensors":
            (folder / path.name).hardlink_to(path)
    seeing.write_processor(folder, 896, 256)
    config = json.loads((text / "config.json").read_text())
    published = {"hidden_size": 1152, "image_size": 896, "intermediate_size": 4304, "patch_size": 14}
    published |= {"num_attention_heads": 16, "num_hidden_layers": 27, "vision_use_head": False}
    config |= {"mm_tokens_per_image": 256}
    config["vision_config"] = {"model_type": "siglip_vision_model", **published}
    (folder / "config.json").write_text(json.dumps(config))
    random = np.random.default_rng(7)
    block = bf16(random.standard_normal(1 << 22, np.float32) * np.float32(0.03))
    shapes = dict(towers.shapes(towers.DEFAULT, seeing.TEXT["hidden_size"]))
    weights = {
        name: np.resize(np.roll(block, int(random.integers(1 << 20))), int(np.prod(shape)))
        for name, shape in shapes.items()
    }
    entries = {name: ("BF16", shape) for name, shape in shapes.items()}
    write_safetensors(folder / "model-00002-of-00002.safetensors", entries, weights)
    kept = seeing.LAYOUTS["original"]
    from safetensors.torch import load_file, save_file

    tensors = {k: v for k, v in load_file(text / "model.safetensors").items() if k.startswith("language_model.")}
    save_file({kept(k): v for k, v in tensors.items()}, folder / "model-00001-of-00002.safetensors")
    weight_map = dict.fromkeys(tensors, "model-00001-of-00002.safetensors")
    weight_map |= dict.fromkeys(shapes, "model-00002-of-00002.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


@pytest.mark.slow
@pytest.mark.oracle
def test_all_439_tensors_of_the_real_tower(require: Require, eye: Path, scratch: Path) -> None:
    folder = full_tower(scratch / "gemma-3-tower", eye)
    run("convert", folder, "--quant", "bf16", "-o", scratch / "ours")
    ours = seeing.projector(scratch / "ours")
    tensors = {t.name: (t.tensor_type.name, t.shape.tolist()[::-1]) for t in GGUFReader(ours).tensors}
    assert len(tensors) == 439
    for name, shape in towers.shapes(towers.DEFAULT, 64):
        kind, stored = tensors[towers.to_gguf(name)]
        assert stored == list(shape)
        wide = len(shape) == 1 or ".embeddings." in name
        assert kind == ("F32" if wide else "F16"), name
    keys = {key: value for key, (_, value) in keys_of(ours).items()}
    published = {"image_size": 896, "patch_size": 14, "embedding_length": 1152, "feed_forward_length": 4304}
    published |= {"block_count": 27, "attention.head_count": 16, "projection_dim": 64, "image_mean": [0.5] * 3}
    assert {key: keys[f"clip.vision.{key}"] for key in published} == published
    assert "clip.vision.projector.scale_factor" not in keys
    theirs = reference(require, folder, scratch / "theirs.gguf", "f16", "--mmproj")
    assert same_mmproj(ours, theirs) == 439
