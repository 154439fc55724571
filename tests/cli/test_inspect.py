"""`gemmaq inspect`: facts as a table, as JSON, and the name alone."""

from __future__ import annotations

import json
from pathlib import Path

import gemma4_drafter
from inprocess import run


def test_json(small: Path) -> None:
    facts = json.loads(run("inspect", small, "--json").stdout)
    assert facts["schema"] == "gemmaq.inspect/1"
    assert facts["name"] == "gemma-3-small"
    listed = json.loads(run("inspect", small, "--json", "--tensors").stdout)
    assert len(str(listed)) > len(str(facts)) and facts.items() <= {**listed, "tensors": facts.get("tensors")}.items()


def test_quiet_is_the_name(small: Path) -> None:
    done = run("inspect", small, "-q")
    assert (done.stdout, done.stderr) == ("gemma-3-small\n", "")


def test_the_table_says_what_it_is(small: Path, small_gguf: Path) -> None:
    shown = run("inspect", small).stdout
    assert "BF16" in shown and "layers" in shown and "tokenizer" in shown
    assert "Q4_0" in run("inspect", next(small_gguf.glob("*.gguf"))).stdout


def test_a_drafter_says_what_it_is_for(tmp_path: Path) -> None:
    drafter = gemma4_drafter.write(tmp_path / "gemma-4-dense-it-assistant", gemma4_drafter.DRAFTERS["dense"])
    assert f"drafter: gemmaq convert MODEL --draft {drafter} writes it" in run("inspect", drafter).stdout


def test_every_tensor(small: Path) -> None:
    lines = run("inspect", small, "--tensors").stdout.splitlines()
    assert sum("layers.0." in line for line in lines) == 13


def test_what_is_not_there(tmp_path: Path) -> None:
    assert "does not exist" in run("inspect", tmp_path / "absent", code=5).stderr
    (tmp_path / "notes.txt").touch()
    run("inspect", tmp_path / "notes.txt", code=3)
