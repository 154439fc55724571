"""Blobs of Ollama, in which model and towers are one file: read as a model with its mmproj file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import gemma4_towers
import seeing
from inprocess import run
from ollama_blobs import gemma3_name, joined
from oracles import read_gguf


def written(source: Path, out: Path) -> tuple[Path, Path]:
    """Model and mmproj file, in BF16."""
    run("convert", source, "--quant", "bf16", "--mmproj", "bf16", "-o", out)
    (mmproj,) = out.glob("mmproj*.gguf")
    (model,) = (path for path in out.glob("*.gguf") if path != mmproj)
    return model, mmproj


@pytest.mark.slow
@pytest.mark.oracle
def test_a_blob_of_gemma3_gives_the_files_that_it_was_made_of(eye: Path, tmp_path: Path) -> None:
    model, mmproj = written(eye, tmp_path / "two")
    blob = joined(model, mmproj, tmp_path / "blobs", gemma3_name, seeing.TOKENS)
    said = run("inspect", blob)
    assert "images: the towers in the model's own file are taken" in said.stdout and "left out" not in said.stdout
    again = written(blob, tmp_path / "again")
    for old, new in zip((model, mmproj), again, strict=True):
        assert read_gguf(old)[1] == read_gguf(new)[1], old.name
    names = ("clip.projector_type", "clip.vision.projector.scale_factor", "clip.vision.image_size")
    keys = [read_gguf(path)[0] for path in (mmproj, again[1])]
    assert [keys[0].get(name) for name in names] == [keys[1].get(name) for name in names]
    text = [read_gguf(path)[0] for path in (model, again[0])]
    for name in ("gemma3.rope.freq_base_swa", "gemma3.rope.scaling.factor", "tokenizer.ggml.tokens"):
        assert text[0][name] == text[1][name], name


def test_a_blob_of_gemma4_gives_the_files_that_it_was_made_of(tmp_path: Path, seeing_gemma4: Path) -> None:
    model, mmproj = written(seeing_gemma4, tmp_path / "two")
    blob = joined(model, mmproj, tmp_path / "blobs", str)
    facts = json.loads(run("inspect", blob, "--json").stdout)
    assert facts["vision_bytes"] and facts["architecture"] == "gemma4 with vision and audio"
    for old, new in zip((model, mmproj), written(blob, tmp_path / "again"), strict=True):
        assert read_gguf(old)[1] == read_gguf(new)[1], old.name


@pytest.fixture(scope="module")
def seeing_gemma4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model like E2B."""
    return gemma4_towers.write(tmp_path_factory.mktemp("sees") / "gemma-4-small", gemma4_towers.KINDS["effective"])
