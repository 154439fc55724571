"""A slice of the bits that `flips.py` flips."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import flips

from inprocess import Done


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return flips.made(tmp_path_factory.mktemp("artifacts"))


@pytest.mark.slow
def test_verify_finds_every_flipped_bit(artifacts: dict[str, Path]) -> None:
    assert [problem for problem in (flips.try_flip(number, artifacts) for number in range(48)) if problem] == []


def test_a_flip_that_is_missed_is_told(artifacts: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flips, "run_any", lambda *_: Done(0, "all is well", ""))
    before = {path: path.read_bytes() for path in artifacts["gguf"].iterdir()}
    assert "exit code 0" in str(flips.try_flip(0, {"gguf": artifacts["gguf"]}))
    assert {path: path.read_bytes() for path in artifacts["gguf"].iterdir()} == before
