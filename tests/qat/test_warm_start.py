"""A student that begins elsewhere: with trained weights, or with the codes of GPTQ."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gemmaq.checkpoint.rows import weights
from gemmaq.files.span import Reader
from gemmaq.sources.open import open_source
from inprocess import run
from small import Trained, codes, in_process

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.slow


def test_the_start_may_be_another_folder(trained: Trained, source: Path, text: Path, tmp_path: Path) -> None:
    record = in_process(source, text, tmp_path / "out", "--start", trained.folder, "--train-norms")
    ends = trained.record["evaluation"]["after"]["kl"]
    assert record["evaluation"]["before"]["kl"] == pytest.approx(ends, rel=0.02)
    assert record["start"]["name"] == trained.folder.name


def test_a_start_on_a_grid_keeps_its_scales(source: Path, text: Path, tmp_path: Path) -> None:
    """From GPTQ: what is measured before the first step is the GPTQ model, and converting keeps the trained codes."""
    run("convert", source, "--method", "gptq", "--portable", "--text", text, "-o", tmp_path / "gptq")
    start = next((tmp_path / "gptq").glob("*.gguf"))
    record = in_process(source, text, tmp_path / "out", "--start", start, "--steps", 20)
    assert record["evaluation"]["after"]["kl"] < record["evaluation"]["before"]["kl"]
    run("convert", tmp_path / "out", "-o", tmp_path / "gguf")
    before, after = codes(start), codes(next((tmp_path / "gguf").glob("*.gguf")))
    stored = open_source(str(tmp_path / "out")).tensors
    moved = []
    with Reader() as reader:
        for name, (chosen, scales) in after.items():
            assert np.isclose(np.abs(scales), np.abs(before[name][1]), rtol=2**-8).mean() > 0.995
            lattice = torch.from_numpy(np.repeat(scales, 32, axis=1) * (chosen.astype(np.float32) - 8))
            in_file = torch.from_numpy(weights(stored[name], 0, stored[name].rows, reader))
            assert torch.equal(lattice.bfloat16().float(), in_file)
            moved.append(float((before[name][0] != chosen).mean()))
    assert 0 < max(moved) < 0.5
