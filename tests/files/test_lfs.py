"""Pointers of Git LFS are named as such, in whatever file they lie."""

from __future__ import annotations

from pathlib import Path

import pytest

from damage import small_model
from inprocess import run

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "a" * 64 + "\nsize 123456789\n"
FILES = [
    "model.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
    "config.json",
    "generation_config.json",
    "pytorch_model.bin",
    "x.gguf",
    "blob",
]


@pytest.mark.parametrize("name", FILES)
def test_a_pointer_is_named(tmp_path: Path, name: str) -> None:
    folder = small_model(tmp_path / "m")
    if name.startswith(("pytorch", "model-")):
        (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    if name.startswith("pytorch"):
        (folder / "model-00001-of-00002.safetensors").unlink()
    (folder / name).write_text(POINTER)
    error = run("inspect", folder / name if name in ("x.gguf", "blob") else folder, code=3).stderr
    assert name in error and "git lfs pull" in error


@pytest.mark.parametrize("name", ["tokenizer.model", "tokenizer.json", "tokenizer_config.json"])
def test_a_pointer_of_a_tokenizer_is_named(tmp_path: Path, name: str) -> None:
    folder = small_model(tmp_path / "m")
    if name == "tokenizer.json":
        (folder / "tokenizer.model").unlink()
    (folder / name).write_text(POINTER)
    error = run("convert", folder, "-o", tmp_path / "out", code=3).stderr
    assert name in error and "git lfs pull" in error


def test_a_pointer_of_a_text_is_named(tmp_path: Path) -> None:
    folder = small_model(tmp_path / "m")
    text = tmp_path / "text.txt"
    text.write_text(POINTER)
    error = run("convert", folder, "--method", "gptq", "--text", text, "-o", tmp_path / "o", code=3).stderr
    assert "text.txt" in error and "git lfs pull" in error
