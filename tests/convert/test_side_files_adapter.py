"""An adapter's conversion: what the record and the card say of it, and that it can be verified and estimated."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

import lora_files
from inprocess import run


@pytest.fixture(scope="module")
def adapter(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapters") / "my-adapter"
    return lora_files.write(folder, lora_files.config(), lora_files.pair(64, 64), base=tiny)


@pytest.fixture(scope="module")
def converted(adapter: Path) -> Path:
    run("convert", adapter, "--quant", "q8_0", "-o", adapter.parent / "out")
    return adapter.parent / "out"


def test_record_and_card_tell_base_and_adapter(converted: Path, adapter: Path, tiny: Path) -> None:
    (entry,) = json.loads((converted / "gemmaq.json").read_text())["models"]
    base, own = entry["source"], entry["adapter"]
    assert (base["name"], own["kind"], own["rank"], own["base"]) == ("my-adapter", "LoRA", 4, "gemma-3-tiny")
    weights = adapter / "adapter_model.safetensors"
    listed = {file["path"]: file["sha256"] for file in own["files"]}
    assert listed[weights.name] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert "adapter_config.json" in listed
    assert weights.name not in {file["path"] for file in base["files"]}
    assert {"config.json", *(path.name for path in tiny.glob("*.safetensors"))} <= {
        file["path"] for file in base["files"]
    }
    assert str(adapter.parent) not in json.dumps(entry)
    card = (converted / "README.md").read_text()
    assert "The LoRA adapter my-adapter of rank 4 was merged into gemma-3-tiny in float32." in card


def test_it_is_verified_against_the_adapter_and_not_its_base(converted: Path, adapter: Path, tiny: Path) -> None:
    assert "all 93 tensors are what gemmaq makes" in run("verify", converted, "--against", adapter).stdout
    assert "blk.0.attn_q.weight" in run("verify", converted, "--against", tiny, code=8).stderr


def test_another_base_can_be_named(adapter: Path, tiny: Path, tmp_path: Path) -> None:
    lost = lora_files.write(tmp_path / "lost", lora_files.config(), lora_files.pair(64, 64), base="/nowhere/model")
    assert "--base" in run("convert", lost, "-o", tmp_path / "out", code=5).stderr
    run("convert", lost, "--base", tiny, "--quant", "q8_0", "-o", tmp_path / "out")
    run("verify", tmp_path / "out", "--against", lost, "--base", tiny)
    assert "--base is for adapters" in run("convert", tiny, "--base", tiny, "-o", tmp_path / "x", code=2).stderr


def test_inspect_tells_both(adapter: Path, tiny: Path) -> None:
    facts = json.loads(run("inspect", adapter, "--json").stdout)
    assert facts["adapter"]["base"]["location"] == str(tiny)
    assert facts["adapter"]["rank"] == 4
    assert set(facts["types"]) == {"bf16"}
    assert "LoRA of rank 4" in run("inspect", adapter).stdout


def test_memory_is_that_of_the_base(adapter: Path, tiny: Path) -> None:
    def weights(source: Path) -> list[int]:
        found = json.loads(run("estimate-vram", source, "--json").stdout)["estimates"]
        return [row["bytes"]["weights"] for row in found]

    assert weights(adapter) == weights(tiny)
