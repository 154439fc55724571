"""What is wrong with a vision side, said; and what is odd about one, borne."""

from __future__ import annotations

import filecmp
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

import seeing
from inprocess import run
from oracles import read_gguf

TOWER = "vision_tower.vision_model."
FC1 = TOWER + "encoder.layers.1.mlp.fc1.weight"
HINT = "--mmproj none converts the text model alone"
Change = Callable[[dict[str, Any]], None]


def changed(source: Path, target: Path, change: Change) -> Path:
    """A folder with other tensors."""
    target.mkdir(parents=True)
    for path in source.iterdir():
        if path.name != "model.safetensors":
            (target / path.name).hardlink_to(path)
    tensors = load_file(source / "model.safetensors")
    change(tensors)
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    return target


def cut(tensors: dict[str, Any]) -> None:
    tensors[FC1] = tensors[FC1][:, :32].clone()


def narrow_projection(tensors: dict[str, Any]) -> None:
    name = "multi_modal_projector.mm_input_projection_weight"
    tensors[name] = tensors[name][:, :32].clone()


BROKEN: dict[str, tuple[Change, str]] = {
    "missing": (lambda tensors: tensors.pop(FC1), f"the vision side lacks {FC1}"),
    "cut": (cut, f"the vision side has the shape [96, 32], not [96, 64], for {FC1}"),
    "projection": (narrow_projection, "has the shape [64, 32], not [64, 64], for multi_modal_projector."),
    "half": (
        lambda tensors: [tensors.pop(name) for name in list(tensors) if name.startswith("multi_modal")],
        "the vision side lacks multi_modal_projector.mm_input_projection_weight",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("container", ["gguf", "mlx", "safetensors"])
def test_an_incomplete_vision_side_is_refused(eye: Path, tmp_path: Path, kind: str, container: str) -> None:
    change, message = BROKEN[kind]
    folder = changed(eye, tmp_path / "gemma-3-eye", change)
    done = run("convert", folder, "--to", container, "-o", tmp_path / "out", code=3)
    said = " ".join(done.stderr.split())
    assert message in said and HINT in said
    assert not (tmp_path / "out").exists()
    if container == "gguf":
        run("convert", folder, "--mmproj", "none", "-o", tmp_path / "out")
        assert not list((tmp_path / "out").glob("mmproj*"))


def test_nan_in_the_tower(eye: Path, tmp_path: Path) -> None:
    def spoil(tensors: dict[str, Any]) -> None:
        tensors[FC1][5, 7] = float("nan")

    folder = changed(eye, tmp_path / "gemma-3-eye", spoil)
    done = run("convert", folder, "-o", tmp_path / "out", code=3)
    assert f": tensor {FC1} holds NaN" in done.stderr
    assert not (tmp_path / "out").exists()


def test_weights_of_the_tower_beyond_f16(eye: Path, tmp_path: Path) -> None:
    def spoil(tensors: dict[str, Any]) -> None:
        tensors[FC1][5, 7] = 1e6

    folder = changed(eye, tmp_path / "gemma-3-eye", spoil)
    done = run("convert", folder, "-o", tmp_path / "out", code=3)
    assert f"tensor {FC1} has weights too large for F16" in done.stderr and "--mmproj bf16 holds them" in done.stderr
    run("convert", folder, "--mmproj", "bf16", "-o", tmp_path / "out")


@pytest.mark.parametrize("kind", ["q4_0", "F64", "", "f16,bf16"])
def test_no_such_type_of_the_vision_side(eye: Path, tmp_path: Path, kind: str) -> None:
    done = run("convert", eye, "--mmproj", kind, "-o", tmp_path / "out", code=2)
    assert "known: f16, bf16, q8_0, f32, none" in " ".join(done.stderr.split())


def test_a_multimodal_config_without_vision_tensors_is_a_text_model(eye: Path, tmp_path: Path) -> None:
    def blind(tensors: dict[str, Any]) -> None:
        for name in [name for name in tensors if not name.startswith("language_model.")]:
            del tensors[name]

    folder = changed(eye, tmp_path / "gemma-3-eye", blind)
    run("convert", folder, "--to", "gguf", "--to", "mlx", "--quant", "bf16", "-o", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out/gguf").glob("*.gguf")] == ["gemma-3-eye-BF16.gguf"]
    config = json.loads((tmp_path / "out/mlx/config.json").read_text())
    assert config["model_type"] == "gemma3_text" and "vision_config" not in config


def test_a_pooling_head_is_dropped(eye: Path, tmp_path: Path) -> None:
    """SigLIP's own, which Gemma 3 has no use for but some checkpoints carry along."""
    import torch

    def add(tensors: dict[str, Any]) -> None:
        parts = ("probe", "attention.in_proj_weight", "attention.in_proj_bias", "layernorm.weight", "mlp.fc1.weight")
        for part in parts:
            tensors[f"{TOWER}head.{part}"] = torch.ones(1, 1, 64, dtype=torch.bfloat16)

    for name, folder in {"plain": eye, "head": changed(eye, tmp_path / "gemma-3-eye", add)}.items():
        run("convert", folder, "--quant", "bf16", "-o", tmp_path / name)
    names = ["gemma-3-eye-BF16.gguf", "mmproj-gemma-3-eye-F16.gguf"]
    assert filecmp.cmpfiles(tmp_path / "plain", tmp_path / "head", names, shallow=False) == (names, [], [])


def beside(gguf: Path, folder: Path) -> Path:
    """A copy of a text GGUF in a folder of its own."""
    folder.mkdir()
    return Path(shutil.copy(gguf, folder / gguf.name))


def test_the_projector_of_another_model_is_passed_over(int4: Path, eye: Path, tmp_path: Path) -> None:
    model = beside(seeing.text(int4 / "gguf"), tmp_path / "source")
    data = bytearray(seeing.projector(int4 / "gguf").read_bytes())
    at = data.index(b"clip.vision.projection_dim") + len(b"clip.vision.projection_dim") + 4
    assert int.from_bytes(data[at : at + 4], "little") == 64
    data[at : at + 4] = (2560).to_bytes(4, "little")
    (tmp_path / "source/mmproj-other-F16.gguf").write_bytes(data)
    (tmp_path / "source/mmproj-F16.gguf").write_bytes(data)
    done = run("convert", model, "--to", "mlx", "--quant", "auto", "-o", tmp_path / "out")
    said = " ".join(done.stderr.split())
    for name in ("mmproj-other-F16.gguf", "mmproj-F16.gguf"):
        assert f"{name} is passed over: it is for a model of width 2560, not 64" in said
    assert "vision_config" not in json.loads((tmp_path / "out/config.json").read_text())


@pytest.mark.parametrize("kept", [0, 100, 3000, -1000])
def test_a_corrupt_projector_beside_a_model(int4: Path, tmp_path: Path, kept: int) -> None:
    """Cut off in its header or in its weights: the model is converted without it on request alone."""
    model = beside(seeing.text(int4 / "gguf"), tmp_path / "source")
    data = seeing.projector(int4 / "gguf").read_bytes()
    (tmp_path / "source/mmproj-gemma-3-eye-F16.gguf").write_bytes(data[:kept])
    done = run("convert", model, "--quant", "auto", "-o", tmp_path / "out", code=3)
    assert "lies beside mmproj-gemma-3-eye-F16.gguf, which may be its mmproj file" in " ".join(done.stderr.split())
    run("convert", model, "--quant", "auto", "--mmproj", "none", "-o", tmp_path / "out")
    assert not list((tmp_path / "out").glob("mmproj*"))


def test_shards_of_a_multimodal_model(eye: Path, tmp_path: Path) -> None:
    """The projector stays one file; folders are split over everything, and open again."""
    run("convert", eye, "--quant", "bf16", "--max-shard-size", "200k", "-o", tmp_path / "gguf")
    shards = sorted(path.name for path in (tmp_path / "gguf").glob("gemma*.gguf"))
    assert len(shards) > 2 and all("-of-" in name for name in shards)
    whole = tmp_path / "whole"
    run("convert", eye, "--quant", "bf16", "-o", whole)
    mmproj = "mmproj-gemma-3-eye-F16.gguf"
    assert filecmp.cmp(tmp_path / "gguf" / mmproj, whole / mmproj, shallow=False)
    run("convert", eye, "--to", "safetensors", "--quant", "bf16", "--max-shard-size", "200k", "-o", tmp_path / "hf")
    index = json.loads((tmp_path / "hf/model.safetensors.index.json").read_text())["weight_map"]
    files = sorted(path.name for path in (tmp_path / "hf").glob("*.safetensors"))
    assert sorted(set(index.values())) == files and len(files) > 3
    assert len({index[name] for name in index if "vision" in name}) > 1
    for source in (tmp_path / "gguf" / shards[0], tmp_path / "hf"):
        out = tmp_path / f"from-{source.parent.name}-{source.stem}"
        run("convert", source, "--quant", "bf16", "-o", out)
        ours, theirs = (read_gguf(path)[1] for path in (seeing.projector(out), whole / mmproj))
        for name, (kind, shape, data) in theirs.items():
            assert ours[name][:2] == (kind, shape)
            dtype = {0: np.float32, 1: np.float16}[kind]
            np.testing.assert_allclose(np.frombuffer(ours[name][2], dtype), np.frombuffer(data, dtype), atol=1e-7)


@pytest.mark.parametrize("kind", ["f16", "f32", "none"])
def test_a_dry_run_says_what_is_written_to_the_byte(eye: Path, tmp_path: Path, kind: str) -> None:
    command = ("convert", eye, "--to", "gguf", "--to", "mlx", "--mmproj", kind, "--json", "-o", tmp_path / "out")
    dry, real = (json.loads(run(*command, *options).stdout) for options in (("--dry-run",), ()))
    sizes = [[(file["path"], file["bytes"]) for a in done["artifacts"] for file in a["files"]] for done in (dry, real)]
    listed = dict(sizes[1])
    assert dict(sizes[0]).items() <= listed.items()
    weights = [path for path in (tmp_path / "out").rglob("*") if path.suffix in (".gguf", ".safetensors")]
    assert {path.name: path.stat().st_size for path in weights}.items() <= dict(sizes[0]).items()
    assert len(weights) == (2 if kind == "none" else 3)


def test_threads_make_no_difference(eye: Path, int4: Path, tmp_path: Path) -> None:
    to = ("--to", "gguf", "--to", "mlx", "--to", "safetensors")
    for threads in (1, 5):
        out = tmp_path / str(threads)
        run("convert", eye, *to, "--quant", "q4_0", "--threads", threads, "-o", out)
        names = [str(path.relative_to(int4)) for path in int4.rglob("*") if path.is_file()]
        assert len(names) > 15
        same, *different = filecmp.cmpfiles(int4, out, names, shallow=False)
        assert (len(same), different) == (len(names), [[], []])
