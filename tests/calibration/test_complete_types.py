"""GPTQ of K-quants and IQ4_NL by the command: several types in one run, each with the bytes of a run of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from damage import SMALL, small_model
from inprocess import run

pytestmark = pytest.mark.usefixtures("torch_and_transformers")


def test_several_types_in_one_run_have_the_bytes_of_single_runs(file: Path, tmp_path: Path) -> None:
    source = small_model(tmp_path / "gemma-3-tiny", replace(SMALL, hidden_size=256, intermediate_size=256), seed=3)
    options = ("--method", "gptq", "--text", file, "--calibration-context", 64, "--calibration-tokens", 512, "-q")
    types = ("q4_k_m", "q6_k", "iq4_nl")
    run("convert", source, *(word for name in types for word in ("--quant", name)), *options, "-o", tmp_path / "all")
    for name in types:
        run("convert", source, "--quant", name, *options, "-o", tmp_path / name)
        single = next((tmp_path / name).glob("*.gguf"))
        assert single.read_bytes() == (tmp_path / "all" / single.name).read_bytes()
    rounded = tmp_path / "nearest"
    run("convert", source, "--quant", "q4_k_m", "-q", "-o", rounded)
    (plain,), (solved,) = (list(place.glob("*.gguf")) for place in (rounded, tmp_path / "q4_k_m"))
    assert plain.stat().st_size == solved.stat().st_size and plain.read_bytes() != solved.read_bytes()
