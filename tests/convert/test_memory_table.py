"""Memory in a card: the same figures as `gemmaq estimate-vram`."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import gemma4_drafter
import gemma4_towers
from gemmaq import vram
from gemmaq.artifact import card, description
from gemmaq.convert import memory_table
from gemmaq.sources.open import open_source
from inprocess import run


def test_figures_are_those_of_the_command(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "gemma-3-tiny"
    run("convert", tiny, "-o", folder, "-q")
    text = memory_table.memory_table(description.of_checkpoint(open_source(str(folder)), folder))
    assert text in (folder / card.NAME).read_text()
    context = int(text.splitlines()[-1].split("|")[1].replace(",", ""))
    flags = ("--context", context, "--engine", "llama.cpp", "--no-vision", "--json")
    (estimate,) = json.loads(run("estimate-vram", folder, *flags).stdout)["estimates"]
    total = estimate["bytes"]["total"] / 1e9
    assert text.splitlines()[-1].rstrip("| ").endswith(f"{total:.2f}")


def test_what_is_beside_the_text_model_has_columns_of_its_own(tmp_path: Path) -> None:
    """Totals of the command for the text side, with towers, and with the drafter on top."""
    source = gemma4_towers.write(tmp_path / "gemma-4-E2B-it", gemma4_towers.KINDS["effective"])
    drafter = gemma4_drafter.write(tmp_path / "gemma-4-E2B-it-assistant", gemma4_drafter.DRAFTERS["effective"])
    folder = tmp_path / "out"
    run("convert", source, "--draft", drafter, "-o", folder, "-q")
    said = (folder / card.NAME).read_text()
    head, _, row = re.findall(r"^\| .+ \|$", said[said.index("| context |") :], re.MULTILINE)[:3]
    titles = ["total", "with images and sound", "and with the drafter"]
    assert [cell.strip() for cell in head.strip("|").split("|")][-3:] == titles
    (weights,) = folder.glob("gemma-*.gguf")
    flags = ("--context", row.split("|")[1].strip().replace(",", ""), "--engine", "llama.cpp", "--json")
    for cell, more in zip(row.strip("| ").split("|")[-3:-1], ("--no-vision", "--vision"), strict=True):
        (estimate,) = json.loads(run("estimate-vram", weights, *flags, more).stdout)["estimates"]
        assert cell.strip() == f"{estimate['bytes']['total'] / 1e9:.2f}"
    assert float(row.strip("| ").split("|")[-1]) >= float(row.strip("| ").split("|")[-2])


def test_compute_that_falls_with_the_context_is_explained(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "gemma-3-tiny"
    run("convert", tiny, "-o", folder, "-q")
    model = description.of_checkpoint(open_source(str(folder)), folder)
    monkeypatch.setattr(memory_table, "_contexts", lambda *_: [64, 128])
    usual = memory_table.memory_table(model)
    assert "may fall with the context" not in usual
    estimate = vram.estimate

    def falling(engine: Any, build: Any, load: vram.Load) -> vram.Estimate:
        return replace(estimate(engine, build, load), compute=10**9 - load.context)

    monkeypatch.setattr(memory_table.vram, "estimate", falling)
    assert "compute may fall with the context" in memory_table.memory_table(model)
