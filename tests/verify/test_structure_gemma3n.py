"""Folders of Gemma 3n, whose stacks are matrices of their own, are verified."""

from __future__ import annotations

from pathlib import Path

import pytest

import gemma3n
import inprocess


@pytest.mark.parametrize(("to", "quant"), [("safetensors", "bf16"), ("safetensors", "q4_0"), ("mlx", "q4_0")])
def test_stacks_in_slices_are_all_there(tmp_path: Path, to: str, quant: str) -> None:
    source = gemma3n.write(tmp_path / "gemma-3n-tiny")
    inprocess.run("convert", source, "--quant", quant, "--to", to, "-o", tmp_path / "out")
    inprocess.run("verify", tmp_path / "out")  # asserts that nothing is wrong
