"""How long a training takes, from the time of its parts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gemmaq.qat import duration
from gemmaq.qat.duration import Duration
from gemmaq.qat.trainer import MEASURED, SAFETY
from inprocess import run
from small import words

pytest.importorskip("torch")


def test_steps_that_fit_are_fewer_than_would_take_the_time_but_enough_to_know_their_speed() -> None:
    took = Duration(step=0.5, beside=10.0, layers=4)
    assert took.seconds(20) == 10 + 4 * 20 * 0.5
    assert took.steps(10 + 4 * 20 * 0.5 * SAFETY) == 20
    assert took.steps(5.0) == MEASURED + 1


def forecast(source: Path, text: Path, tmp_path: Path, *options: object) -> dict[str, Any]:
    command = words(source, text, tmp_path / "out", "--dry-run", *options)
    return dict(json.loads(run(*command, "--json").stdout))


@pytest.mark.parametrize(
    ("options", "step"),
    [
        ((), 4 * (1 + 1) + 1 + 4),  # layers of teacher and student as long as four of the first, the head, the update
        (("--accumulate", "3"), 3 * (4 * (1 + 1) + 1) + 4),
        (("--teacher-samples", "4"), 4 * 1 + 1 + 4),  # no teacher
        (("--checkpoint-activations",), 4 * (1 + 1 + 1 / 3) + 1 + 4),  # a forward pass more
        (("--block-wise",), (4 * 1 + 4) / 2),
    ],
)
def test_a_step_is_the_sum_of_its_parts(
    source: Path, text: Path, tmp_path: Path, options: tuple[str, ...], step: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    def one(function: Any, device: object) -> float:
        function()
        return 1.0

    monkeypatch.setattr(duration, "_seconds", one)
    monkeypatch.setattr(duration, "active", lambda _: [1000, 3000])  # the second layer as long as three of the first
    measured = duration._measured
    monkeypatch.setattr(duration, "_measured", lambda *given: measured(*given[:3], 2 * given[3]))  # and as large
    found = forecast(source, text, tmp_path, *options)
    assert found["seconds_per_step"] == pytest.approx(step)
    layers = 2 if "--block-wise" in options else 1
    assert found["seconds"] > layers * found["steps"] * step
    if "--teacher-samples" in options:  # are drawn first, by a pass of the teacher over the whole text
        assert found["seconds"] > found["steps"] * step + 4 * found["train_sequences"] / 2


def test_a_time_budget_says_how_many_steps_fit_and_whether_they_do(source: Path, text: Path, tmp_path: Path) -> None:
    found = forecast(source, text, tmp_path, "--minutes", 1, "--steps", 20)
    assert found["steps"] == 20 and found["steps_that_fit"] is None
    dry = [*words(source, text, tmp_path / "out", "--dry-run")]
    at = dry.index("--steps")
    del dry[at : at + 2]
    said = run(*dry, "--minutes", "1").stdout
    assert "as many steps as 1 minutes allow, here about" in said and "more than" not in said
    late = run(*dry, "--minutes", "0.001").stdout
    assert f"here about {MEASURED + 1}" in late and "more than the 0.001 minutes allowed" in late
    resumed = run(*words(source, text, tmp_path / "out", "--dry-run", "--minutes", "60", "--resume")).stdout
    assert "s a step from the beginning" in resumed and "as many" not in resumed


def test_without_memory_for_a_layer_the_time_is_not_known(
    source: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gemmaq.inference.device.free_memory", lambda _: 1 << 20)
    found = forecast(source, text, tmp_path)
    assert found["seconds"] is None and found["steps"] == 20 and found["memory_bytes"] > 0
    assert "not known" in run(*words(source, text, tmp_path / "out", "--dry-run")).stdout


def test_a_trained_embedding_takes_longer(source: Path, text: Path, tmp_path: Path) -> None:
    found = forecast(source, text, tmp_path, "--train-embedding")
    assert 0 < found["seconds_per_step"] < found["seconds"]
