"""Memory in a card: the same figures as `gemmaq estimate-vram`."""

from __future__ import annotations

import json
from pathlib import Path

from gemmaq.artifact import card
from gemmaq.convert.memory_table import memory_table
from gemmaq.sources.open import open_source
from inprocess import run


def test_figures_are_those_of_the_command(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "gemma-3-tiny"
    run("convert", tiny, "-o", folder, "-q")
    text = memory_table(card.of_checkpoint(open_source(str(folder)), folder))
    assert text in (folder / card.NAME).read_text()
    context = int(text.splitlines()[-1].split("|")[1].replace(",", ""))
    flags = ("--context", context, "--engine", "llama.cpp", "--no-vision", "--json")
    (estimate,) = json.loads(run("estimate-vram", folder, *flags).stdout)["estimates"]
    total = estimate["bytes"]["total"] / 1e9
    assert text.splitlines()[-1].rstrip("| ").endswith(f"{total:.2f}")
