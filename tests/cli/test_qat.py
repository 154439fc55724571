"""`gemmaq qat`: options that make no sense."""

from __future__ import annotations

from pathlib import Path

import pytest

from inprocess import run

pytest.importorskip("torch")


def test_usage(tiny: Path, tmp_path: Path) -> None:
    for option, value in (
        ("--grid", "q4_1"),
        ("--activations", "int4"),
        ("--dtype", "f16"),
        ("--learning-rate", 2),
        ("--clip", 0),
        ("--device", "nonsense"),
    ):
        run("qat", tiny, "--text", tmp_path / "none.txt", "-o", tmp_path / "out", option, value, code=2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", [["--train-embedding"], ["--teacher-samples", 8]])
def test_block_wise_says_what_it_cannot_do(tiny: Path, tmp_path: Path, option: list[object]) -> None:
    arguments = ["qat", tiny, "--text", tmp_path / "none.txt", "-o", tmp_path / "out", "--block-wise", *option]
    assert f"--block-wise and {option[0]} exclude each other" in run(*arguments, code=2).stderr
