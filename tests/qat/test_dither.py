"""A source that was quantized before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gemmaq.methods.lattice import GridFit
from gemmaq.qat.dither import on_lattice
from gemmaq.sources.open import open_source
from inprocess import run
from small import words

pytest.importorskip("torch")


def test_a_quantized_source_is_dithered_and_warned_of(source: Path, text: Path, tmp_path: Path) -> None:
    run("convert", source, "--quant", "q5_0", "-o", tmp_path / "q5")
    model = next((tmp_path / "q5").glob("*.gguf"))
    said = run(*words(model, text, tmp_path / "out", "--steps", 2)).stderr
    assert "14 matrices were quantized before (14 Q5_0)" in said
    assert json.loads((tmp_path / "out" / "qat.json").read_text())["dithered"] == {"Q5_0": 14}
    plain = run(*words(model, text, tmp_path / "plain", "--steps", 2, "--no-dither")).stderr
    assert "warning" not in plain


def test_fine_lattices_need_no_noise(source: Path) -> None:
    checkpoint = open_source(str(source))
    first, second, third, *_ = checkpoint.matrices
    verdicts = {
        first: GridFit("8-bit channel", 1.0, 0.002, 99),
        second: GridFit("half steps", 1.0, 0.002, 99),
        third: GridFit("absmax/7", 0.5, 0.002, 99, 0.08),
    }
    assert on_lattice(checkpoint, verdicts) == {second: "half steps", third: "absmax/7"}
