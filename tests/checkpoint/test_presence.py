"""Tokens without rows, towers without tensors: told by inspect and by convert."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import gemma4_towers
from damage import edit_header, edit_json
from gemmaq.models.gemma3 import towers
from gemmaq.sources.open import open_source
from inprocess import run
from synthetic import TINY, write_checkpoint

ROWS, SIZE = 328, 320
NEW = {"<|tool|>": 320, "<|call|>": 327, "<|behind|>": 400}


def resized(tiny: Path, folder: Path) -> Path:
    """A model whose embedding has eight rows more than its config says."""
    write_checkpoint(folder, replace(TINY, vocab_size=ROWS))
    edit_json(folder / "config.json", lambda document: document.update(vocab_size=SIZE))
    for path in tiny.iterdir():
        if "token" in path.name:
            shutil.copy(path, folder)
    return folder


def in_decoder(folder: Path) -> None:
    added = {str(at): {"content": text, "special": True} for text, at in NEW.items()}
    edit_json(folder / "tokenizer_config.json", lambda d: d["added_tokens_decoder"].update(added))


def in_tokenizer(folder: Path) -> None:
    added = [{"id": at, "content": text, "special": False} for text, at in NEW.items()]
    edit_json(folder / "tokenizer.json", lambda d: d["added_tokens"].extend(added))


def in_vocabulary(folder: Path) -> None:
    edit_json(folder / "tokenizer.json", lambda d: d["model"]["vocab"].update(NEW))


def in_older_file(folder: Path) -> None:
    (folder / "added_tokens.json").write_text(json.dumps(NEW))


@pytest.mark.parametrize("place", [in_decoder, in_tokenizer, in_vocabulary, in_older_file])
def test_tokens_in_rows_that_are_cut_are_named(place: Callable[[Path], None], tiny: Path, tmp_path: Path) -> None:
    folder = resized(tiny, tmp_path / "gemma-3-tiny")
    place(folder)
    said = "has 328 rows, but vocab_size is 320: the tokens <|tool|>, <|call|> will be lost; set vocab_size to 328"
    assert said in run("inspect", folder).stdout
    for container in ("gguf", "mlx", "safetensors"):
        done = run("convert", folder, "--to", container, "--quant", "bf16", "-o", tmp_path / container)
        assert "warning" in done.stderr and said in done.stderr.replace("\n", " ")
    edit_json(folder / "config.json", lambda document: document.update(vocab_size=ROWS))
    if place is in_decoder:  # tokenizer.model counts before tokenizer.json
        assert open_source(str(folder)).tokenizer.pieces[320] == "<|tool|>"
    assert "lost" not in run("inspect", folder).stdout


def test_rows_without_tokens_are_cut_without_a_word(tiny: Path, tmp_path: Path) -> None:
    folder = resized(tiny, tmp_path / "gemma-3-tiny")
    done = run("convert", folder, "--quant", "bf16", "-o", tmp_path / "out")
    assert "vocab_size" not in done.stderr and open_source(str(folder)).embedding.rows == SIZE


def test_a_config_with_vision_and_no_tensors_of_it_is_told(tiny: Path, tmp_path: Path) -> None:
    """mlx_lm.convert leaves such folders of models with vision."""
    folder = tmp_path / "gemma-3-tiny"
    shutil.copytree(tiny, folder)
    document = json.loads((folder / "config.json").read_text())
    whole = {"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "text_config": document}
    whole |= {"vision_config": towers.to_hf_config(towers.DEFAULT), **towers.token_keys(towers.DEFAULT)}
    (folder / "config.json").write_text(json.dumps(whole))
    said = "describes a side for images (vision_config), but no file has its tensors: the result takes no images"
    assert said in run("inspect", folder).stdout
    done = run("convert", folder, "--quant", "bf16", "-o", tmp_path / "out")
    assert "warning" in done.stderr and said in done.stderr.replace("\n", " ")


@pytest.fixture
def sees(tmp_path: Path) -> Path:
    return gemma4_towers.write(tmp_path / "gemma-4-small", gemma4_towers.KINDS["effective"])


def without(folder: Path, *words: str) -> None:
    def change(header: dict) -> None:
        for name in [name for name in header if any(word in name for word in words)]:
            del header[name]

    edit_header(folder / "model.safetensors", change)


def test_one_of_two_towers_may_be_missing(sees: Path, tmp_path: Path) -> None:
    without(sees, "audio")
    facts = json.loads(run("inspect", sees, "--json").stdout)
    assert facts["vision_bytes"] and not facts["audio_bytes"]
    assert any("describes a side for sound (audio_config)" in note for note in facts["notes"])
    run("convert", sees, "--quant", "q8_0", "-o", tmp_path / "out")
    assert any(path.name.startswith("mmproj") for path in (tmp_path / "out").iterdir())


def test_an_incomplete_tower_is_told(sees: Path, tmp_path: Path) -> None:
    without(sees, "vision_tower.encoder.layers.1.")
    said = "the vision side lacks"
    assert said in run("inspect", sees).stdout
    refused = run("convert", sees, "-o", tmp_path / "out", code=3).stderr
    assert said in refused and "more of its" in refused and "--mmproj none" in refused
    done = run("convert", sees, "--mmproj", "none", "-o", tmp_path / "out")
    assert said in done.stderr.replace("\n", " ")
