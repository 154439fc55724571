"""Training of Gemma 4: layer embeddings, and layers that share keys and values."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import gemma4
import gemma4_tokenizer
from inprocess import run
from small import words


@pytest.mark.slow
@pytest.mark.parametrize("mode", [(), ("--block-wise",)], ids=["whole", "block-wise"])
def test_training_lowers_the_divergence(mode: tuple[str, ...], tmp_path: Path) -> None:
    source = gemma4_tokenizer.write(gemma4.write(tmp_path / "gemma-4-effective", gemma4.EFFECTIVE))
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(gemma4_tokenizer.texts(200)))
    steps = ("--steps", 8, "--learning-rate", "3e-4") if mode else ("--steps", 40)
    forecast = json.loads(run(*words(source, text, tmp_path / "out", *steps, *mode, "--dry-run", "--json")).stdout)
    assert 0 < forecast["seconds_per_step"] < forecast["seconds"]
    run(*words(source, text, tmp_path / "out", *steps, *mode))
    evaluation = json.loads((tmp_path / "out/qat.json").read_text())["evaluation"]
    assert evaluation["after"]["kl"] < 0.85 * evaluation["before"]["kl"]
    run("verify", tmp_path / "out")
