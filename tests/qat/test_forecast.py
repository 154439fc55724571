"""The dry run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from inprocess import run
from small import words

pytest.importorskip("torch")


def test_a_dry_run_says_what_would_be_done(source: Path, text: Path, tmp_path: Path) -> None:
    found = json.loads(run(*words(source, text, tmp_path / "out", "--dry-run"), "--json").stdout)
    assert found["trained"] == 2 * 30720
    assert (found["steps"], found["tokens_per_step"]) == (20, 128)
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.work").exists()
    assert "block" not in run(*words(source, text, tmp_path / "out", "--dry-run")).stdout


def test_a_dry_run_refuses_what_the_real_run_refuses(source: Path, text: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert "exists" in run(*words(source, text, tmp_path / "out", "--dry-run"), code=7).stderr


def test_steps_are_counted_per_layer(source: Path, text: Path, tmp_path: Path) -> None:
    said = run(*words(source, text, tmp_path / "out", "--dry-run", "--block-wise")).stdout
    assert "20 steps per layer, 128 tokens each" in said and "one layer at a time" in said
