"""Models that cannot be converted: inspect and estimate-vram say what their headers do, convert refuses them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from gguf import GGUFWriter

from damage import edit_json
from inprocess import run
from synthetic import TINY, write_checkpoint


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = write_checkpoint(tmp_path / "drafter", TINY)
    edit_json(made / "config.json", lambda c: c.update(architectures=["EmbeddingGemma2Model"]))
    return made


@pytest.mark.parametrize("command", ["inspect", "estimate-vram"])
def test_the_weights_of_a_folder_are_shown(folder: Path, command: str) -> None:
    facts = json.loads(run(command, folder, "--json").stdout)
    assert facts["parameters"] == TINY.parameters and facts["tensor_bytes"] == 2 * TINY.parameters
    assert facts["supported"] is False and "EmbeddingGemma 2" in facts["reason"] and set(facts["types"]) == {"bf16"}
    shown = run(command, folder).stdout
    assert f"{TINY.parameters:,}" in shown and "is not supported" in shown and "all that its headers say" in shown
    assert run(command, folder, "--quiet").stdout.strip() == str(2 * TINY.parameters)


def test_the_weights_of_a_gguf_file_are_shown(tmp_path: Path) -> None:
    import numpy as np

    writer = GGUFWriter(tmp_path / "old.gguf", "gemma2")
    writer.add_tensor("token_embd.weight", np.zeros((4, 32), np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    facts = json.loads(run("inspect", tmp_path / "old.gguf", "--json").stdout)
    assert facts["types"] == {"f16": {"tensors": 1, "bytes": 256}} and "Gemma 2" in facts["reason"]


def test_it_is_converted_by_no_means_and_estimated_alone(folder: Path, tmp_path: Path) -> None:
    refused = run("convert", folder, "-o", tmp_path / "out", code=3).stderr
    assert "EmbeddingGemma 2 is not supported" in refused and "EmbeddingGemma 300M works" in refused
    run("estimate-vram", folder, "270m", code=3)
