"""Artifacts of a multimodal model as sources again: GGUF with mmproj, MLX and compressed-tensors folders."""

from __future__ import annotations

import filecmp
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

import seeing
from inprocess import run
from oracles import read_gguf

Tensors = dict[str, tuple[int, list[int], bytes]]


def tensors(path: Path) -> Tensors:
    return read_gguf(path)[1]


@pytest.fixture(scope="module")
def wide(eye: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model as BF16 GGUF with a BF16 mmproj."""
    out = tmp_path_factory.mktemp("wide") / "out"
    run("convert", eye, "--quant", "bf16", "--mmproj", "bf16", "-o", out)
    return out


@pytest.fixture(scope="module")
def back(wide: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That as a Hugging Face folder again."""
    out = tmp_path_factory.mktemp("back") / "out"
    run("convert", seeing.text(wide), "--to", "safetensors", "--quant", "bf16", "-o", out)
    return out


@pytest.mark.oracle
def test_gguf_and_mmproj_give_a_complete_folder(eye: Path, back: Path, dense: Any, processor: Any) -> None:
    """1 + w in F32, less 1 and rounded to BF16, is w again but for the last bits of a small one."""
    from transformers import AutoProcessor

    source, ours = (load_file(folder / "model.safetensors") for folder in (eye, back))
    assert ours.keys() == source.keys()
    for name, weights in source.items():
        shifted = name.endswith("norm.weight") and "vision_tower" not in name
        error = float((ours[name].float() - weights.float()).abs().max())
        assert error <= (2e-7 if shifted else 0), name
    old, new = (json.loads((folder / "config.json").read_text()) for folder in (eye, back))
    assert new["architectures"] == old["architectures"] and new["model_type"] == "gemma3"
    for name in ("mm_tokens_per_image", "image_token_index", "boi_token_index", "eoi_token_index"):
        assert new[name] == old[name], name
    for name in ("hidden_size", "image_size", "intermediate_size", "num_attention_heads", "num_hidden_layers"):
        assert new["vision_config"][name] == old["vision_config"][name], name
    model, theirs = seeing.load(back), AutoProcessor.from_pretrained(back)
    assert type(theirs) is type(processor) and type(theirs.tokenizer) is type(processor.tokenizer)
    given = {"text": "A word, <start_of_image> and\n\n\tmore.", "images": [seeing.picture(3).resize((300, 200))]}
    ours_in, theirs_in = (made(**given, return_tensors="pt") for made in (theirs, processor))
    assert ours_in.keys() == theirs_in.keys()
    assert all(ours_in[name].equal(theirs_in[name]) for name in theirs_in)
    same = seeing.logits(dense, theirs_in)
    assert float(np.abs(seeing.logits(model, ours_in) - same).max() / np.ptp(same)) < 1e-5
    turns = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Hm?"}]}]
    assert theirs.apply_chat_template(turns) == processor.apply_chat_template(turns)


def test_gguf_and_mmproj_to_mlx(int4: Path, tmp_path: Path) -> None:
    """The codes of the GGUF, the vision side of its F16 file, which holds every BF16 weight that is not tiny."""
    run("convert", seeing.text(int4 / "gguf"), "--to", "mlx", "--quant", "auto", "-o", tmp_path / "out")
    ours, direct = (load_file(folder / "model.safetensors") for folder in (tmp_path / "out", int4 / "mlx"))
    assert ours.keys() == direct.keys()
    differing = {name for name, array in direct.items() if not ours[name].equal(array)}
    for name in differing:
        assert name.startswith(("vision_tower", "multi_modal_projector")) or name.endswith("norm.weight"), name
        assert float((ours[name].float() - direct[name].float()).abs().max()) < 2e-7, name
    a, b = (json.loads((folder / "config.json").read_text()) for folder in (tmp_path / "out", int4 / "mlx"))
    assert a["quantization"] == b["quantization"] and a["vision_config"] == b["vision_config"]


@pytest.mark.parametrize("source", ["mlx", "safetensors"])
def test_folders_to_gguf_and_mmproj(int4: Path, tmp_path: Path, source: str) -> None:
    run("convert", int4 / source, "--quant", "auto", "-o", tmp_path / "out")
    ours, theirs = tensors(seeing.text(tmp_path / "out")), tensors(seeing.text(int4 / "gguf"))
    assert ours.keys() == theirs.keys()
    embedding = {"token_embd.weight"} if source == "safetensors" else set()  # it is BF16 there
    assert {name for name in theirs if ours[name] != theirs[name]} == embedding
    assert tensors(seeing.projector(tmp_path / "out")) == tensors(seeing.projector(int4 / "gguf"))
    keys = [read_gguf(seeing.projector(folder))[0] for folder in (tmp_path / "out", int4 / "gguf")]
    assert all(keys[0][key] == value for key, value in keys[1].items() if key.startswith("clip."))


def test_one_command_for_three_containers_writes_what_three_write(eye: Path, int4: Path, tmp_path: Path) -> None:
    for name in ("gguf", "mlx", "safetensors"):
        portable = ("--portable", "--embedding", "q8_0") if name == "gguf" else ()
        run("convert", eye, "--to", name, "--quant", "q4_0", *portable, "-o", tmp_path / name)
        weights = [path.name for path in (int4 / name).iterdir() if path.suffix in (".gguf", ".safetensors")]
        assert len(weights) == (2 if name == "gguf" else 1)
        names = [*weights, *([] if name == "gguf" else ["config.json", "preprocessor_config.json"])]
        same, *different = filecmp.cmpfiles(int4 / name, tmp_path / name, names, shallow=False)
        assert (sorted(same), different) == (sorted(names), [[], []])


def test_the_f16_projector_beside_a_model_is_preferred_and_can_be_done_without(wide: Path, tmp_path: Path) -> None:
    folder = tmp_path / "both"
    shutil.copytree(wide, folder)
    projector = seeing.projector(folder)
    name = projector.name.replace("BF16", "F16")
    run("convert", seeing.text(wide), "--quant", "bf16", "--mmproj", "f16", "-o", tmp_path / "f16")
    shutil.copy(tmp_path / "f16" / name, folder / name)
    run("convert", folder / seeing.text(wide).name, "--quant", "bf16", "--mmproj", "f16", "-o", tmp_path / "again")
    assert filecmp.cmp(tmp_path / "again" / name, folder / name, shallow=False)
    run("convert", seeing.text(wide), "--quant", "bf16", "--mmproj", "none", "-o", tmp_path / "text")
    assert not list((tmp_path / "text").glob("mmproj*"))
    assert tensors(seeing.text(tmp_path / "text")) == tensors(seeing.text(wide))


def test_the_towers_are_written_once(eye: Path, tmp_path: Path) -> None:
    said = json.loads(run("convert", eye, "--quant", "q4_0,q8_0", "-o", tmp_path / "out", "--json").stdout)
    assert len(list((tmp_path / "out").glob("mmproj*"))) == 1
    projectors = [[f for f in entry["files"] if "mmproj" in f["path"]] for entry in said["artifacts"]]
    assert projectors[0] == projectors[1] != []
    assert json.loads(run("verify", tmp_path / "out", "--against", eye, "--json").stdout)["ok"]
