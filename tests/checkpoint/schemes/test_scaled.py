"""Weights of FP8 folders."""

from __future__ import annotations

from pathlib import Path

import pytest

import quantized_folders as folders


@pytest.mark.parametrize("kind", folders.kinds("fp8", "modelopt"))
def test_weights_are_those_of_the_scheme(kind: str, tmp_path: Path) -> None:
    folders.check(tmp_path / "model", kind)
