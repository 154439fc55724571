"""Texts that cannot be trained on."""

from __future__ import annotations

from pathlib import Path

import pytest

from inprocess import run
from small import words

pytest.importorskip("torch")


def test_texts(source: Path, text: Path, tmp_path: Path) -> None:
    empty, tiny = tmp_path / "empty.txt", tmp_path / "tiny.txt"
    empty.write_text(" \n")
    tiny.write_text("A short sentence.")
    out = tmp_path / "out"
    assert "there is no text in" in run(*words(source, empty, out), code=3).stderr
    assert "fewer than 64 tokens of text" in run(*words(source, tiny, out), code=3).stderr
    assert "does not exist" in run(*words(source, tmp_path / "none.txt", out), code=5).stderr
    few = run(*words(source, text, out, "--batch", 4096), code=3).stderr
    assert "a batch is 4096" in few and "--batch" in few
    assert list(tmp_path.glob("out*")) == []
