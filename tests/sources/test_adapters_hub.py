"""Adapters on the Hub: read by their headers, downloaded with their base, and opened offline."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from huggingface_hub import constants

import lora_files
from fake_hub import FakeHub
from home import Here

BASE, ADAPTER = "acme/gemma-3-tiny", "acme/my-adapter"


@pytest.fixture
def repository(hub: FakeHub, tiny: Path, tmp_path: Path) -> Path:
    """The folder of an adapter whose base is a repository; it has a tokenizer of its own."""
    hub.add(BASE, tiny)
    folder = lora_files.write(tmp_path / "my-adapter", lora_files.config(), lora_files.pair(64, 64), base=BASE)
    for name in ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(tiny / name, folder / name)
    (folder / "training_args.bin").write_bytes(b"not read")
    hub.add(ADAPTER, folder)
    return folder


def test_headers_tell_both(hub: FakeHub, here: Here, repository: Path) -> None:
    facts = json.loads(here.run("inspect", ADAPTER, "--json").stdout)
    assert facts["adapter"]["base"]["location"] == BASE
    assert facts["adapter"]["changed"] == 1
    assert "headers only" in here.run("inspect", ADAPTER).stdout
    assert json.loads(here.run("estimate-vram", ADAPTER, "--json").stdout)["estimates"]


def test_both_are_downloaded_and_the_record_has_their_commits(
    hub: FakeHub, here: Here, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.run("convert", ADAPTER, "--quant", "q8_0", "-o", tmp_path / "out")
    (entry,) = json.loads((tmp_path / "out" / "gemmaq.json").read_text())["models"]
    assert (entry["source"]["repo"], entry["adapter"]["repo"]) == (BASE, ADAPTER)
    assert entry["source"]["revision"] != entry["adapter"]["revision"]
    assert all(entry[part]["revision"] for part in ("source", "adapter"))
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"[{ADAPTER}](https://huggingface.co/{ADAPTER})" in card
    assert f"base_model:\n- {ADAPTER}\n" in card
    assert not list(here.home.rglob("training_args.bin"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    here.run("verify", tmp_path / "out", "--against", ADAPTER)


def test_an_adapter_alone_needs_only_headers_of_its_base(
    hub: FakeHub, here: Here, repository: Path, tmp_path: Path
) -> None:
    here.run("convert", ADAPTER, "--to", "gguf-lora", "-o", tmp_path / "out")
    assert (tmp_path / "out" / "my-adapter-F32-LoRA.gguf").is_file()
    assert not here.root(BASE).exists()
