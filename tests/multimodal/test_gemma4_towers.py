"""The towers of Gemma 4 in an mmproj file, and back from there."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gemma4_towers
from conversions import conversions
from gemma4_towers import HEARING, KINDS
from inprocess import run
from oracles import read_gguf
from runtimes import Require, need

TYPES = ("f16", "bf16", "q8_0", "f32")
Convert = Callable[[str, str], Path]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A Hugging Face folder of every kind."""
    return gemma4_towers.folders(tmp_path_factory.mktemp("gemma4-towers"))


@pytest.fixture(scope="module")
def converted(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Convert:
    """(kind, type) -> a folder with both GGUF files."""
    return conversions(folders, tmp_path_factory.mktemp("converted"), "--quant", "q4_0", "--mmproj")


def tensors_of(folder: Path) -> dict[str, Any]:
    """The tensors of a folder in BF16."""
    import torch
    from safetensors.torch import load_file

    found: dict[str, Any] = load_file(folder / "model.safetensors")
    assert {tensor.dtype for tensor in found.values()} == {torch.bfloat16}
    return found


def mmproj(folder: Path) -> Path:
    return next(folder.glob("mmproj-*.gguf"))


def text(folder: Path) -> Path:
    return next(folder.glob("gemma-*.gguf"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_gguf_with_its_mmproj_is_the_folder_again(
    folders: dict[str, Path], converted: Convert, tmp_path: Path, kind: str
) -> None:
    run("convert", text(converted(kind, "bf16")), "--to", "safetensors", "--quant", "bf16", "-o", tmp_path / "back")
    ours, theirs = tensors_of(tmp_path / "back"), tensors_of(folders[kind])
    towers = [name for name in theirs if not name.startswith("model.language_model.")]
    assert ours.keys() == theirs.keys() and len(towers) == len(dict(gemma4_towers.shapes(KINDS[kind])))
    for name in towers:
        assert ours[name].equal(theirs[name]), name
    document, original = (json.loads((f / "config.json").read_text()) for f in (tmp_path / "back", folders[kind]))
    for section in ("vision_config", "audio_config"):
        assert document[section] == (original[section] and without_dtype(original[section]))
    assert {key: document[key] for key in gemma4_towers.token_ids()} == gemma4_towers.token_ids()
    processor = json.loads((tmp_path / "back/processor_config.json").read_text())
    assert processor == gemma4_towers.processor_json(KINDS[kind])


def without_dtype(section: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in section.items() if key != "dtype"}


MLX_VLM = """
import sys
from mlx_vlm import convert
convert(sys.argv[1], mlx_path=sys.argv[2], quantize=True, q_bits=4, q_group_size=64)
"""


@pytest.mark.slow
@pytest.mark.oracle
def test_a_folder_of_mlx_vlm_is_a_source(require: Require, folders: dict[str, Path], tmp_path: Path) -> None:
    """It quantizes the projector for sound, too."""
    need(require, "mlx_vlm")
    made = tmp_path / "gemma-4-effective"
    done = subprocess.run([sys.executable, "-c", MLX_VLM, folders["effective"], made], capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    run("convert", made, "--quant", "q4_0", "--mmproj", "f32", "-o", tmp_path / "out")
    run("convert", folders["effective"], "--quant", "q4_0", "--mmproj", "f32", "-o", tmp_path / "other")
    ours, theirs = (read_gguf(mmproj(tmp_path / name))[1] for name in ("out", "other"))
    assert {name for name in theirs if ours[name] != theirs[name]} == {"mm.a.input_projection.weight"}


@pytest.mark.parametrize("kind", HEARING)
def test_any_type_is_a_source(converted: Convert, kind: str) -> None:
    for name in TYPES:
        found = json.loads(run("inspect", text(converted(kind, name)), "--json").stdout)
        tensors = read_gguf(mmproj(converted(kind, name)))[1]
        assert found["vision_bytes"] + found["audio_bytes"] == sum(len(data) for *_, data in tensors.values())
        assert (found["audio_bytes"] > 0) == (kind in HEARING)
        assert found["architecture"] == "gemma4 with vision" + " and audio" * (kind in HEARING)


def test_bounds_may_be_infinite(tmp_path: Path) -> None:
    """As transformers has them where a model is made without any."""
    bounds = [(name, shape) for name, shape in gemma4_towers.shapes(KINDS["effective"]) if not shape]
    given = {name: np.full(shape, -np.inf if name.endswith("min") else np.inf, "f") for name, shape in bounds}
    folder = gemma4_towers.write(tmp_path / "gemma-4-boundless", KINDS["effective"], given)
    run("convert", folder, "--quant", "q4_0", "-o", tmp_path / "out")
    stored = read_gguf(mmproj(tmp_path / "out"))[1]
    assert stored["a.blk.1.conv_pw2.output_min"][2] == np.float32(-np.inf).tobytes()
    assert "Warning" not in run("verify", tmp_path / "out", "--against", folder).stderr
    given[bounds[0][0]] = np.float32(np.nan)
    folder = gemma4_towers.write(tmp_path / "gemma-4-senseless", KINDS["effective"], given)
    assert bounds[0][0].removeprefix("model.") in run("convert", folder, "-o", tmp_path / "no", code=3).stderr


def test_the_text_model_alone_is_converted_on_request(folders: dict[str, Path], tmp_path: Path) -> None:
    run("convert", folders["effective"], "--quant", "q4_0", "--mmproj", "none", "-o", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").glob("*.gguf")] == ["gemma-4-effective-Q4_0.gguf"]


@pytest.mark.parametrize("kind", HEARING)
def test_a_tensor_of_the_audio_side_of_another_shape_is_named(tmp_path: Path, kind: str) -> None:
    model = KINDS[kind]
    folder = gemma4_towers.write(tmp_path / "gemma-4-lacking", model)
    config = json.loads((folder / "config.json").read_text())
    name = "audio_embed_dim" if model.unified else "output_proj_dims"
    config["audio_config"][name] = 64
    (folder / "config.json").write_text(json.dumps(config))
    done = run("convert", folder, "--quant", "q4_0", "-o", tmp_path / "out", code=3)
    assert "audio side has the shape" in done.stderr and "embed_audio.embedding_projection" in done.stderr
