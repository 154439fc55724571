"""How long a training takes, from the time of its parts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gemmaq.qat import duration
from gemmaq.qat.duration import Duration
from inprocess import run
from small import words

pytest.importorskip("torch")


def test_steps_and_seconds_are_each_others_reverse() -> None:
    took = Duration(step=0.5, beside=10.0, layers=4)
    assert took.seconds(20) == 10 + 4 * 20 * 0.5
    assert took.steps(took.seconds(20)) == 20
    assert took.steps(5.0) == 0  # less than what is done beside the steps


@pytest.mark.parametrize(
    ("options", "step"),
    [
        ((), 2 * (1 + 1) + 1 + 2),  # two layers of teacher and student, the head, the optimizer of two layers
        (("--accumulate", "3"), 3 * (2 * (1 + 1) + 1) + 2),
        (("--teacher-samples", "4"), 2 * 1 + 1 + 2),  # no teacher
        (("--checkpoint-activations",), 2 * (1 + 1 + 1 / 3) + 1 + 2),  # a forward pass more
        (("--block-wise",), 1 + 1),
    ],
)
def test_a_step_is_the_sum_of_its_parts(
    source: Path, text: Path, tmp_path: Path, options: tuple[str, ...], step: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    def one(function: Any, device: object) -> float:
        function()
        return 1.0

    monkeypatch.setattr(duration, "_seconds", one)
    found = json.loads(run(*words(source, text, tmp_path / "out", "--dry-run", *options), "--json").stdout)
    assert found["seconds_per_step"] == pytest.approx(step)
    layers = 2 if "--block-wise" in options else 1
    assert found["seconds"] > layers * found["steps"] * step


def test_a_trained_embedding_takes_the_optimizer_longer(source: Path, text: Path, tmp_path: Path) -> None:
    command = words(source, text, tmp_path / "out", "--dry-run", "--train-embedding")
    found = json.loads(run(*command, "--json").stdout)
    assert 0 < found["seconds_per_step"] < found["seconds"]
