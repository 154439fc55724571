"""Memory of Gemma 4 models on disk, by their headers: every kind, as a folder and as the file that it becomes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import gemma4
from gemmaq.models.gemma4.config import TextConfig
from inprocess import run

ROPE_FREQUENCIES = 4 * 64
"""Bytes of the tensor that GGUF files have and folders have not, for heads of 128 numbers."""


def estimate(source: Path, *options: object) -> dict[str, Any]:
    (entry,) = json.loads(run("estimate-vram", source, "--context", 512, *options, "--json").stdout)["estimates"]
    result: dict[str, Any] = entry
    return result


def table_bytes(config: TextConfig) -> int:
    """Bytes of the embeddings of every layer in BF16."""
    return 2 * 512 * config.num_hidden_layers * config.layer_embedding


@pytest.mark.parametrize("kind", gemma4.KINDS)
def test_a_folder_of_every_kind(kind: str, tmp_path: Path) -> None:
    """Norms are F32, the table of every layer is in main memory, layers that share a cache have none."""
    config = gemma4.KINDS[kind]
    entry = estimate(gemma4.write(tmp_path / "model", config), "--quant", "bf16")
    own = [layer for layer in config.layers if layer.kv_from is None]
    rows = {local: sum(2 * 2 * layer.kv_width for layer in own if layer.is_local == local) for local in (True, False)}
    assert (entry["bytes"]["kv_global"], entry["bytes"]["kv_local"]) == (512 * rows[False], 512 * rows[True])
    least = 2 * config.parameters + ROPE_FREQUENCIES - table_bytes(config)
    assert least < entry["bytes"]["weights"] < 1.1 * least
    assert entry["host"] > table_bytes(config) + 2 * 512 * config.hidden_size


def test_a_folder_as_transformers_loads_it_keeps_the_table_on_the_gpu(tmp_path: Path) -> None:
    config = gemma4.KINDS["effective"]
    entry = estimate(gemma4.write(tmp_path / "model", config), "--engine", "transformers", "--quant", "bf16")
    assert entry["bytes"]["weights"] == 2 * config.parameters and entry["host"] == 0
    assert any("on the GPU" in note for note in entry["notes"])
