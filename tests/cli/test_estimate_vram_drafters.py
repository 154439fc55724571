"""`gemmaq estimate-vram --draft`: drafters by name and in files, and those that are loaded without being asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

import gemma4
import gemma4_drafter
import gemma4_tokenizer
from inprocess import run
from memory import MIB, estimates
from oracles import read_gguf


def test_a_published_drafter_has_the_types_of_its_target() -> None:
    types = ("--quant", "q4_0", "--quant", "q8_0")
    alone = estimates("gemma-4-12B", *types)
    both = estimates("gemma-4-12B", *types, "--draft", "12B-it-assistant")
    assert [entry["draft"] for entry in (*alone, *both)] == [None, None] + ["gemma-4-12B-it-assistant"] * 2
    assert [entry["draft_weights"] for entry in both] == [307_128_336, 449_341_456]
    for entry, more in zip(alone, both, strict=True):
        assert more["draft_compute"] / MIB == pytest.approx(65.0, abs=0.00501)
        assert more["bytes"]["draft"] == more["draft_weights"] + more["draft_compute"]
        assert more["bytes"]["total"] == entry["bytes"]["total"] + more["bytes"]["draft"]
        assert entry["bytes"]["draft"] == 0 and more["bytes"]["kv_global"] == entry["bytes"]["kv_global"]


def test_there_is_a_column_only_where_a_drafter_is_counted() -> None:
    command = ("estimate-vram", "E2B", "--quant", "q4_0")
    assert "drafter" not in run(*command).stdout
    done = run(*command, "--draft", "E2B-it-assistant")
    assert "drafter" in done.stdout and "no cache of its own" in done.stderr and "local" in done.stdout
    wide = run(*command, "--draft", "E2B-it-assistant", "--vision").stdout
    assert max(map(len, wide.splitlines())) <= 80 and "local" not in wide


def test_a_drafter_of_another_target_is_refused() -> None:
    message = run("estimate-vram", "gemma-4-31B", "--draft", "12B-it-assistant", code=3).stderr
    assert (
        "gemma-4-12B-it-assistant is no drafter for gemma-4-31B: it is for a target of width 3840, not 5376" in message
    )


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and its drafter in Q8_0, in one folder."""
    root = tmp_path_factory.mktemp("drafted")
    source = gemma4_tokenizer.write(gemma4.write(root / "gemma-4-tiny", gemma4.KINDS["dense"]) or root / "gemma-4-tiny")
    drafter = gemma4_drafter.write(root / "gemma-4-tiny-assistant", gemma4_drafter.DRAFTERS["dense"])
    run("convert", source, "--draft", drafter, "--quant", "q8_0", "-o", root / "out", "-q")
    return root / "out"


def test_a_file_counts_as_it_is(artifact: Path) -> None:
    (file,) = artifact.glob("mtp-*.gguf")
    stored = sum(len(data) for *_, data in read_gguf(file)[1].values())
    (entry,) = estimates(artifact, "--draft", file)
    assert entry["draft_weights"] == stored
    assert estimates(artifact, "--draft", file, "--quant", "bf16")[0]["draft_weights"] == stored


def test_ollama_loads_the_drafter_beside_a_model(artifact: Path) -> None:
    (alone,), (ollama,) = estimates(artifact), estimates(artifact, "--engine", "ollama")
    assert alone["draft"] is None and ollama["draft_weights"] > 0
    done = run("estimate-vram", artifact, "--engine", "ollama")
    assert "is taken as the model's drafter" in done.stderr
    (without,) = estimates(artifact, "--engine", "ollama", "--draft", "none")
    assert without["draft"] is None and without["bytes"]["total"] < ollama["bytes"]["total"]
