"""Saved states: a training that is interrupted continues as if it had not been, on any number of processes."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from gemmaq.qat import state as states
from inprocess import run
from small import Trained, call, environment, record_of, words

pytestmark = pytest.mark.slow

pytest.importorskip("torch")


def begin(arguments: list[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "gemmaq", *arguments]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment())


def wait_for_state(work: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 300
    while not list(work.glob("step-*")):
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def same(one: Path, other: Path) -> None:
    assert record_of(one) == record_of(other)
    for name in ("model.safetensors", "qat.json", "loss.svg"):
        assert (one / name).read_bytes() == (other / name).read_bytes()


def test_killed_and_resumed_is_as_if_nothing_had_been(
    trained: Trained, source: Path, text: Path, tmp_path: Path
) -> None:
    out = tmp_path / trained.folder.name
    work = tmp_path / f"{out.name}.work"
    arguments = words(source, text, out, "--train-norms", "--save-steps", 3)
    process = begin(arguments)
    wait_for_state(work, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not out.exists()
    refused = call(arguments)
    assert refused.returncode == 7 and "--resume" in refused.stderr
    other = call([*arguments, "--resume", "--seed", "1"])
    assert other.returncode == 2 and "seed differ" in other.stderr
    done = call([*arguments, "--resume"])
    assert done.returncode == 0, done.stderr
    assert "resuming from step" in done.stderr
    same(out, trained.folder)
    assert sorted(os.listdir(tmp_path)) == [out.name]


def test_two_processes_do_as_one_and_take_over_its_state(
    trained: Trained, source: Path, text: Path, tmp_path: Path
) -> None:
    """Begun by one process, ended by Ctrl-C, finished by two: the same losses to 1e-4."""
    out = tmp_path / trained.folder.name
    arguments = words(source, text, out, "--train-norms", "--save-steps", 2)
    process = begin(arguments)
    wait_for_state(tmp_path / f"{out.name}.work", process)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    said = process.stderr.read()
    assert process.wait() == 130
    assert f"-o {out}" in said and "--resume" in said.splitlines()[-1]
    done = call([*arguments, "--resume"], ranks=2)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("measuring after training") == 1
    assert record_of(out)["losses"] == pytest.approx(trained.record["losses"], abs=1e-4)
    assert record_of(out)["evaluation"]["after"]["kl"] == pytest.approx(
        trained.record["evaluation"]["after"]["kl"], rel=0.05
    )


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
    longer = words(source, text, tmp_path / "out", "--save-steps", 2, "--steps", 3, "--resume")
    assert "resuming from step 2" in run(*longer).stderr
    assert json.loads((tmp_path / "out" / "qat.json").read_text())["steps_changed"] == [[2, 3]]


def test_a_layer_that_is_interrupted_continues_where_it_was(
    source: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Block-wise: broken off within the second layer and resumed, the folder is that of a training without a break."""
    from gemmaq.qat import trainer

    whole, out = tmp_path / "whole" / "out", tmp_path / "out"
    run(*words(source, text, whole, "--block-wise", "--steps", 6))
    real, calls = trainer.step, []

    def step(*arguments: Any) -> float:
        calls.append(1)
        return real(*arguments) if len(calls) < 10 else float("nan")

    monkeypatch.setattr(trainer, "step", step)
    said = run(*words(source, text, out, "--block-wise", "--steps", 6, "--save-steps", 2), code=3).stderr
    assert "layer 2 of 2: the loss of step 4 is not finite; step-0000008 is intact" in said
    monkeypatch.undo()
    other = run(*words(source, text, out, "--steps", 6, "--resume"), code=2).stderr
    assert "block_wise differ" in other
    said = run(*words(source, text, out, "--block-wise", "--steps", 6, "--resume")).stderr
    assert "resuming from step 2 of layer 2" in said
    same(out, whole)
