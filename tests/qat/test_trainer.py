"""The training loop, for both ways to feed it: learning rate, time budget, and a loss that is not finite."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gemmaq.qat import trainer
from gemmaq.qat.settings import Settings
from inprocess import run
from small import words

pytest.importorskip("torch")
pytestmark = pytest.mark.slow

MODES = pytest.mark.parametrize("mode", [[], ["--block-wise"]])


@MODES
def test_the_learning_rate_that_is_asked_for_is_reached(
    source: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: list[str]
) -> None:
    rates: list[float] = []
    real = trainer.step

    def step(loop: trainer.Trainer, number: int, steps: int | None) -> float:
        loss = real(loop, number, steps)
        rates.append(loop.optimizer.param_groups[0]["lr"])
        return loss

    monkeypatch.setattr(trainer, "step", step)
    run(*words(source, text, tmp_path / "out", "--steps", 8, *mode))
    schedule = [Settings(learning_rate=1e-4).rate(step, 8) for step in range(8)]
    assert max(rates) == 1e-4
    assert rates == schedule * (2 if mode else 1)


@MODES
def test_a_loss_that_is_not_finite(
    source: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: list[str]
) -> None:
    real, calls = trainer.step, []

    def step(*given: Any) -> float:
        calls.append(1)
        return real(*given) if len(calls) < 4 else float("nan")

    monkeypatch.setattr(trainer, "step", step)
    said = run(*words(source, text, tmp_path / "out", "--save-steps", 2, *mode), code=3).stderr
    assert "the loss of step 4 is not finite; step-0000002 is intact" in said
    assert "--learning-rate" in said
    assert [path.name for path in (tmp_path / "out.work").iterdir()] == ["step-0000002"]


@MODES
def test_steps_that_do_not_fit(source: Path, text: Path, tmp_path: Path, mode: list[str]) -> None:
    arguments = words(source, text, tmp_path / "out")
    at = arguments.index("--steps")
    said = run(*arguments[:at], *mode, "--steps", 9_000_000, "--minutes", 1, code=2).stderr
    assert "9000000 steps" in said and "1 are allowed" in said and "--resume --steps" in said
    assert [path.name for path in (tmp_path / "out.work").iterdir()] == ["step-0000005"]
    run(*arguments[:at], *mode, "--steps", 6, "--resume")
    assert len(json.loads((tmp_path / "out" / "qat.json").read_text())["losses"]) == (12 if mode else 6)


@MODES
def test_minutes_decide_where_no_steps_are_asked_for(source: Path, text: Path, tmp_path: Path, mode: list[str]) -> None:
    arguments = words(source, text, tmp_path / "out")
    at = arguments.index("--steps")
    run(*arguments[:at], *mode, "--minutes", 0.2)
    record = json.loads((tmp_path / "out" / "qat.json").read_text())
    assert len(record["losses"]) == record["settings"]["steps"] >= 6
    assert record["steps_changed"]
