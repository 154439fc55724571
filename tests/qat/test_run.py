"""A whole training through the command line: what it changes, records and refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from gemmaq.checkpoint.rows import weights
from gemmaq.files.span import Reader
from gemmaq.models.gemma3 import names
from gemmaq.sources.open import open_source
from inprocess import run
from records import recorded
from small import Trained, record_of, words

pytest.importorskip("torch")
pytestmark = pytest.mark.slow


def test_training_lowers_the_divergence(trained: Trained) -> None:
    record = trained.record
    before, after = record["evaluation"]["before"], record["evaluation"]["after"]
    assert after["kl"] < 0.85 * before["kl"]
    assert len(record["losses"]) == record["settings"]["steps"] == 20
    assert np.mean(record["losses"][-5:]) < 0.85 * np.mean(record["losses"][:3])
    assert record["text"]["files"] == ["topics.txt"]
    assert record["source"]["name"] == "gemma-3-small"
    assert (trained.folder / "loss.svg").read_text().lstrip().startswith("<?xml")
    assert str(trained.folder.parent) not in (trained.folder / "qat.json").read_text()
    assert not trained.folder.with_name(trained.folder.name + ".work").exists()
    run("verify", trained.folder)


def test_only_what_is_to_be_trained_has_changed(trained: Trained, source: Path) -> None:
    mine, other = open_source(str(trained.folder)), open_source(str(source))
    with Reader() as reader:
        for name, tensor in other.tensors.items():
            one = weights(mine.tensors[name], 0, min(tensor.rows, 64), reader)
            two = weights(tensor, 0, min(tensor.rows, 64), reader)
            assert np.array_equal(one, two) == (name == names.EMBEDDING), name


def test_an_existing_output(source: Path, text: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert "exists" in run(*words(source, text, tmp_path / "out"), code=7).stderr


@pytest.mark.parametrize("mode", [[], ["--block-wise"]])
def test_the_result_is_named_after_the_source(source: Path, text: Path, tmp_path: Path, mode: list[str]) -> None:
    """With --start OTHER too, in every file of the folder."""
    start = tmp_path / "another-model"
    shutil.copytree(source, start)
    out = tmp_path / "out"
    run(*words(source, text, out, "--start", start, "--steps", 2, *mode))
    document = recorded(out)
    assert document["source"]["name"] == "gemma-3-small"
    assert record_of(out)["source"]["name"] == "gemma-3-small"
    assert record_of(out)["start"]["name"] == "another-model"
    for name in ("README.md", "gemmaq.json", "config.json"):
        assert "another-model" not in (out / name).read_text(), name


@pytest.mark.parametrize("mode", [[], ["--block-wise"], ["--dry-run"]])
def test_an_untied_head_is_refused_before_anything_is_read(source: Path, tmp_path: Path, mode: list[str]) -> None:
    untied = untie(source, tmp_path / "untied")
    said = run(*words(untied, tmp_path / "no-text.txt", tmp_path / "out", *mode), code=3).stderr
    assert f"{untied} has an untied head, lm_head.weight; training needs a head that is tied" in said
    said = run(*words(source, tmp_path / "no-text.txt", tmp_path / "out", "--start", untied, *mode), code=3).stderr
    assert f"{untied} has an untied head" in said
    assert not list(tmp_path.glob("out*"))


def untie(source: Path, folder: Path) -> Path:
    """A copy of a checkpoint with a head of its own."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(source, folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] * 2
    save_file(tensors, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    return folder
