"""What goes wrong is said, and nothing is lost."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest

from gemmaq.qat import state as states
from gemmaq.qat import trainer
from inprocess import run
from small import words

pytest.importorskip("torch")


def test_texts(source: Path, text: Path, tmp_path: Path) -> None:
    empty, tiny = tmp_path / "empty.txt", tmp_path / "tiny.txt"
    empty.write_text(" \n")
    tiny.write_text("A short sentence.")
    out = tmp_path / "out"
    assert "there is no text in" in run(*words(source, empty, out), code=3).stderr
    assert "not even 64 tokens of text" in run(*words(source, tiny, out), code=3).stderr
    assert "does not exist" in run(*words(source, tmp_path / "none.txt", out), code=5).stderr
    few = run(*words(source, text, out, "--batch", 4096), code=3).stderr
    assert "a batch is 4096" in few and "--batch" in few
    assert list(tmp_path.glob("out*")) == []


def test_usage(source: Path, text: Path, tmp_path: Path) -> None:
    for option, value in (
        ("--grid", "q4_1"),
        ("--activations", "int4"),
        ("--dtype", "f16"),
        ("--learning-rate", 2),
        ("--clip", 0),
        ("--device", "nonsense"),
    ):
        run(*words(source, text, tmp_path / "out", option, value), code=2)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_output(source: Path, text: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert "exists" in run(*words(source, text, tmp_path / "out"), code=7).stderr


def test_teacher_and_student_must_be_one_model(source: Path, tiny: Path, text: Path, tmp_path: Path) -> None:
    said = run(*words(source, text, tmp_path / "out", "--start", tiny), code=3).stderr
    assert "teacher and student are different models" in said and "model.embed_tokens.weight" in said


def test_a_loss_that_is_no_number(source: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = trainer.step, []

    def step(*given: Any) -> float:
        calls.append(1)
        return real(*given) if len(calls) < 4 else float("nan")

    monkeypatch.setattr(trainer, "step", step)
    said = run(*words(source, text, tmp_path / "out", "--save-steps", 2), code=3).stderr
    assert "the loss of step 4 is not finite; step-0000002 is intact" in said
    assert "--learning-rate" in said
    assert [path.name for path in (tmp_path / "out.work").iterdir()] == ["step-0000002"]


def test_a_full_disk_leaves_the_state_before(
    source: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = states.write_tensors, []

    def full(*given: Any) -> None:
        calls.append(1)
        if len(calls) > 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(*given)

    arguments = words(source, text, tmp_path / "out", "--save-steps", 2)
    monkeypatch.setattr(states, "write_tensors", full)
    said = run(*arguments, code=7).stderr
    assert "no space left" in said and "step-0000002 is intact" in said and "--resume" in said
    assert [path.name for path in (tmp_path / "out.work").iterdir()] == ["step-0000002"]
    monkeypatch.undo()
    assert "resuming from step 2" in run(*arguments, "--resume", "--steps", 3).stderr
    assert json.loads((tmp_path / "out" / "qat.json").read_text())["steps_changed"] == [[2, 3]]


def test_steps_that_do_not_fit(source: Path, text: Path, tmp_path: Path) -> None:
    arguments = words(source, text, tmp_path / "out")
    at = arguments.index("--steps")
    said = run(*arguments[:at], "--steps", 10_000_000, "--minutes", 1, code=2).stderr
    assert "10000000 steps of" in said and "1 are allowed" in said and "--resume --steps" in said
    assert [path.name for path in (tmp_path / "out.work").iterdir()] == ["step-0000005"]
    run(*arguments[:at], "--steps", 6, "--resume")
    assert len(json.loads((tmp_path / "out" / "qat.json").read_text())["losses"]) == 6


def test_minutes_decide_where_no_steps_are_asked_for(source: Path, text: Path, tmp_path: Path) -> None:
    arguments = words(source, text, tmp_path / "out")
    at = arguments.index("--steps")
    run(*arguments[:at], "--minutes", 0.2)
    record = json.loads((tmp_path / "out" / "qat.json").read_text())
    assert len(record["losses"]) == record["settings"]["steps"] >= 6
    assert record["steps_changed"]


def test_a_quantized_source_is_dithered_and_warned_of(source: Path, text: Path, tmp_path: Path) -> None:
    run("convert", source, "--quant", "q5_0", "-o", tmp_path / "q5")
    model = next((tmp_path / "q5").glob("*.gguf"))
    said = run(*words(model, text, tmp_path / "out", "--steps", 2)).stderr
    assert "14 matrices were quantized before (14 Q5_0)" in said
    assert json.loads((tmp_path / "out" / "qat.json").read_text())["dithered"] == {"Q5_0": 14}
    plain = run(*words(model, text, tmp_path / "plain", "--steps", 2, "--no-dither")).stderr
    assert "warning" not in plain
