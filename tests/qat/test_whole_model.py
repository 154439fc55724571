"""Training all layers together: every option lowers the divergence, and the same numbers come out."""

from __future__ import annotations

from pathlib import Path

import pytest

from small import Trained, call, in_process, record_of, words

pytest.importorskip("torch")
pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "options",
    [
        ["--teacher-samples", 64, "--vocabulary", 2048],
        ["--activations", "int8", "--vocabulary", 0, "--batch", 1, "--accumulate", 2],
        ["--train-embedding", "--checkpoint-activations", "--dtype", "bf16"],
        ["--grid", "int4-channel"],
    ],
)
def test_other_ways_to_train_lower_it_too(source: Path, text: Path, tmp_path: Path, options: list[object]) -> None:
    record = in_process(source, text, tmp_path / "out", "--steps", 20, *options)
    evaluation = record["evaluation"]
    assert evaluation["after"]["kl"] < evaluation["before"]["kl"]


def test_recomputing_and_accumulating_change_nothing(source: Path, text: Path, tmp_path: Path) -> None:
    plain = in_process(source, text, tmp_path / "plain")["losses"]
    again = in_process(source, text, tmp_path / "again", "--checkpoint-activations")["losses"]
    parts = in_process(source, text, tmp_path / "parts", "--batch", 1, "--accumulate", 2)["losses"]
    assert plain == again
    assert parts == pytest.approx(plain, abs=1e-6)


def test_two_processes_from_the_first_step(trained: Trained, source: Path, text: Path, tmp_path: Path) -> None:
    out = tmp_path / "two"
    done = call(words(source, text, out, "--train-norms"), ranks=2)
    assert done.returncode == 0, done.stderr
    assert len(record_of(out)["losses"]) == 20
    assert record_of(out)["losses"] == pytest.approx(trained.record["losses"], abs=1e-4)
