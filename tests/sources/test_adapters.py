"""An adapter as source: its base model is found, and messages say what to do where it is not."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import lora_files
from gemmaq.errors import InputError, NotFoundError, UsageError
from gemmaq.sources.companions import Wish
from gemmaq.sources.open import open_source
from synthetic import TINY


@pytest.fixture
def adapter(tiny: Path, tmp_path: Path) -> Path:
    return lora_files.write(tmp_path / "my-adapter", lora_files.config(), lora_files.pair(64, 64), base=tiny)


def rename(adapter: Path, base: object, **changes: object) -> None:
    lora_files.write(adapter, lora_files.config(**changes), lora_files.pair(64, 64), base=base)


def test_the_model_has_the_adapters_name_and_tells_its_base(adapter: Path) -> None:
    model = open_source(str(adapter))
    assert (model.name, model.location) == ("my-adapter", str(adapter))
    assert model.notes[0] == (
        "LoRA adapter my-adapter of rank 4 is merged into gemma-3-tiny: it changes 1 of 93 tensors"
    )
    assert adapter / "adapter_model.safetensors" in model.files


def test_a_relative_path_counts_from_here_or_from_the_adapter(
    adapter: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename(adapter, "../base")
    os.symlink(tiny, adapter.parent / "base")
    assert open_source(str(adapter)).adapter is not None
    rename(adapter, "base")
    monkeypatch.chdir(adapter.parent)
    assert open_source("my-adapter").adapter is not None


def test_a_missing_base_is_told_with_the_option(adapter: Path, tmp_path: Path) -> None:
    rename(adapter, None)
    with pytest.raises(NotFoundError, match="names no base model") as caught:
        open_source(str(adapter))
    assert "--base" in (caught.value.hint or "")
    rename(adapter, "/home/someone/gemma")
    with pytest.raises(NotFoundError, match="/home/someone/gemma") as caught:
        open_source(str(adapter))
    assert "--base" in (caught.value.hint or "")
    rename(adapter, tmp_path / "empty")
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotFoundError, match="empty") as caught:
        open_source(str(adapter))
    assert "--base" in (caught.value.hint or "")


def test_a_base_is_for_adapters_alone(tiny: Path) -> None:
    with pytest.raises(UsageError, match="--base is for adapters"):
        open_source(str(tiny), Wish(base="org/other"))


def test_an_adapter_of_an_adapter_is_refused(adapter: Path, tmp_path: Path) -> None:
    second = lora_files.write(tmp_path / "second", lora_files.config(), lora_files.pair(64, 64), base=adapter)
    with pytest.raises(UsageError, match="is an adapter itself"):
        open_source(str(second))


def test_an_adapter_for_certain_tokens_is_refused(adapter: Path, tiny: Path) -> None:
    rename(adapter, tiny, alora_invocation_tokens=[1, 2])
    with pytest.raises(InputError, match="alora_invocation_tokens"):
        open_source(str(adapter))


def test_a_folder_with_a_whole_model_is_that_model(adapter: Path, tiny: Path) -> None:
    for path in tiny.iterdir():
        shutil.copy(path, adapter / path.name)
    assert open_source(str(adapter)).adapter is None


def with_token(folder: Path, tiny: Path, token: int) -> None:
    """Give an adapter a tokenizer of its own with one more token."""
    for name in ("tokenizer.json", "tokenizer.model", "tokenizer_config.json"):
        shutil.copy(tiny / name, folder / name)
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    settings.setdefault("added_tokens_decoder", {})[str(token)] = {"content": "<new>", "special": True}
    settings["chat_template"] = "{{ 'own' }}"
    path.write_text(json.dumps(settings))


def test_the_adapters_tokenizer_counts(adapter: Path, tiny: Path) -> None:
    rows = TINY.vocab_size + 8
    grown = {"base_model.model.model.embed_tokens.weight": np.ones((rows, 64), np.float32)}
    lora_files.write(adapter, lora_files.config(), lora_files.pair(64, 64) | grown, base=tiny)
    with_token(adapter, tiny, TINY.vocab_size)
    model = open_source(str(adapter))
    assert model.config.vocab_size == rows
    assert model.tokenizer.pieces[TINY.vocab_size] == "<new>"
    assert model.tokenizer.chat_template == "{{ 'own' }}"


def test_tokens_without_rows_are_refused(adapter: Path, tiny: Path) -> None:
    with_token(adapter, tiny, TINY.vocab_size)
    with pytest.raises(InputError, match="'<new>'") as caught:
        open_source(str(adapter))
    assert "save_embedding_layers" in (caught.value.hint or "")
