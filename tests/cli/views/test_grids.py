"""Grids of a checkpoint as text and JSON: by kind of tensor, and expert by expert."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from gemmaq.checkpoint import Checkpoint
from gemmaq.cli.views import grids
from gemmaq.methods.lattice import GridFit, together
from gemmaq.methods.lattice_grids import GRIDS
from gemmaq.models.families import kinds as names
from gemmaq.sources.open import open_source
from grids import regrid
from inprocess import run

WHOLE = GridFit("extremum/-8", 1.0, 0.001, 100)
NONE = GridFit(None, 0.0, 0.0, 100, 0.084)
PARTIAL = GridFit("extremum/-8", 0.9, 0.002, 100, 0.08)


@pytest.fixture
def checkpoint(small: Path) -> Checkpoint:
    """The small model, whose first two matrices count as stacks of experts."""
    opened = open_source(str(small))
    tensors = dict(opened.tensors)
    for name in list(opened.matrices)[:2]:
        tensors[name] = replace(tensors[name], place=replace(tensors[name].place, layer=3, kind="experts"))
    return replace(opened, tensors=tensors)


@pytest.fixture
def facts(checkpoint: Checkpoint) -> dict[str, object]:
    first, second, third, fourth, *_ = checkpoint.matrices
    stack = together([WHOLE] * 120 + [NONE] * 8)
    return grids.facts(checkpoint, {first: stack, second: together([WHOLE] * 128), third: PARTIAL, fourth: WHOLE})


def test_experts_count_one_by_one(facts: dict[str, object]) -> None:
    assert facts["matrices"] == 4 and facts["on_grid"] == 2 and facts["partial"] == 2
    kind = facts["kinds"]["experts"]  # type: ignore[index]
    assert {word: kind[word] for word in ("tensors", "experts", "whole", "partial", "none")} == {
        "tensors": 2,
        "experts": 128,
        "whole": 248,
        "partial": 0,
        "none": 8,
    }
    assert kind["rules"] == {"extremum/-8": 248}
    assert (kind["residual"], kind["distance"]) == pytest.approx((0.001, 0.084))


def test_lines_name_stacks_that_are_partly_on_the_grid(facts: dict[str, object]) -> None:
    (label, text), (_, stack) = grids.rows(facts, qat_name=True)
    assert label == "QAT" and "2 of 4 matrices lie on an int4 grid, 2 more partly (4 extremum/-8)" in text
    assert stack == "layer 3 experts: 120 of 128 experts on the grid"
    many = {**facts, "partial_stacks": facts["partial_stacks"] * 6}  # type: ignore[operator]
    assert len(grids.rows(many, qat_name=True)) == 6
    assert "2 more stacks" in grids.rows(many, qat_name=True)[-1][1]


def test_the_table_fits_a_terminal(facts: dict[str, object], capsys: pytest.CaptureFixture[str]) -> None:
    grids.show_kinds(facts)
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 80 for line in lines) and not any("…" in line for line in lines)
    row = next(line for line in lines if "experts" in line)
    assert row.split() == ["experts", "2x128", "extremum/-8", "248", "0", "8", "0.10%", "8.4%"]


def test_the_widest_row_fits_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    kind = {"tensors": 30, "experts": 128, "whole": 3840, "partial": 1024, "none": 1024, "residual": 0.0123}
    kinds = {max(names(), key=len): kind | {"rules": {max(GRIDS, key=len): 9}, "distance": 0.1234}}
    grids.show_kinds({"kinds": kinds})
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 80 for line in lines) and not any("…" in line for line in lines), lines


def test_cells_of_single_tensors() -> None:
    cells = [grids.cell(grids.fit_facts(fit)) for fit in (WHOLE, NONE, PARTIAL, together([WHOLE, NONE, WHOLE]))]
    assert cells == ["extremum/-8 0.10%", "none", "90% extremum/-8 0.20%", "2 of 3 extremum/-8 0.10%"]
    assert grids.cell(None) == ""
    assert grids.fit_facts(together([WHOLE, NONE]))["experts"] == ["whole", "none"]


def test_inspect_shows_kinds_of_a_trained_checkpoint_only(tiny: Path, tmp_path: Path) -> None:
    trained = regrid(tiny, tmp_path / "gemma-3-tiny-qat", "extremum/-8")
    shown, plain = run("inspect", trained).stdout, run("inspect", tiny).stdout
    assert "error" in shown and "q_proj" in shown and "error" not in plain
    kinds = json.loads(run("inspect", trained, "--json").stdout)["grid"]["kinds"]
    assert kinds["q_proj"]["whole"] == 7 and kinds["embedding"]["none"] == 1
