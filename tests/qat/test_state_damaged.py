"""Damaged states of a training: a flipped bit is found, the state before is used, impossible numbers are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from damage import flip
from gemmaq.errors import InputError
from gemmaq.files import sealed
from gemmaq.qat import state as states
from gemmaq.qat.state import State
from inprocess import run
from small import words

torch = pytest.importorskip("torch")

SHAPES = {"a": (2, 3), "b": (4,)}


def save(work: Path, state: State, steps: int) -> None:
    """Make steps and save the state after them."""
    state.step += steps
    state.losses += [1.0] * steps
    states.save(work, state, SHAPES, lambda group, name: torch.zeros(SHAPES[name]), writes=True)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A training that was broken off after its third state."""
    state = State({}, 20)
    for _ in range(3):
        save(tmp_path, state, 2)
    return tmp_path


def names(work: Path) -> list[str]:
    return sorted(path.name for path in work.iterdir())


def test_the_last_two_states_are_kept(work: Path) -> None:
    assert names(work) == ["step-0000004", "step-0000006"]
    assert states.load(states.latest(work).folder).step == 6


@pytest.mark.parametrize("name", ["weights", "first", "second", "state", "SHA256SUMS"])
@pytest.mark.parametrize("at", [0, 0.3, 1])
def test_a_flipped_bit_leads_back_to_the_state_before(work: Path, name: str, at: float) -> None:
    folder = work / "step-0000006"
    flip(next(path for path in folder.iterdir() if path.stem == name), at)
    found = states.latest(work)
    assert found.folder == work / "step-0000004"
    assert "step-0000006" in found.passed[0]
    state = states.load(found.folder)
    save(work, state, 1)
    assert names(work) == ["step-0000004", "step-0000005"]


def test_an_empty_newer_folder_is_passed_over(work: Path) -> None:
    (work / "step-0000008").mkdir()
    assert states.latest(work) == sealed.Last(work / "step-0000006")
    assert states.intact(work) == "step-0000006"


def test_a_state_replaced_by_one_of_the_same_step_leaves_the_one_before(work: Path) -> None:
    state = states.load(work / "step-0000006")
    save(work, state, 0)
    assert names(work) == ["step-0000004", "step-0000006"]


def test_nothing_is_gone_on_with_where_all_states_are_damaged(work: Path) -> None:
    for folder in work.iterdir():
        flip(folder / "first.safetensors", 0.9)
    with pytest.raises(InputError, match=r"step-0000006/first\.safetensors is damaged"):
        states.latest(work)
    assert states.intact(work) is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("step", -1),
        ("step", 7),
        ("step", 5),
        ("step", 2.0),
        ("step", True),
        ("step", 10**30),
        ("step", "6"),
        ("steps", 0),
        ("steps", 5),
        ("steps", -3),
        ("steps", 10**9),
        ("losses", [1.0] * 5),
        ("losses", [1.0, float("nan")] * 3),
        ("losses", 6),
        ("layer", 1),
        ("layer", -1),
        ("changes", [[1]]),
        ("changes", [[7, 9]]),
        ("trained", ["0"]),
        ("identity", 3),
        ("schema", "gemmaq.qat-state/1"),
    ],
)
def test_impossible_numbers_are_refused(work: Path, key: str, value: Any) -> None:
    path = work / "step-0000006" / "state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(InputError, match="is not a state that this gemmaq can continue"):
        states.load(path.parent)


def test_files_of_trained_layers_are_checked(work: Path) -> None:
    layer = states.layer_file(work, 0)
    layer.write_bytes(b"layer")
    state = State({"block_wise": True}, 20, layer=1, trained=[sealed.digest(layer)])
    states.check_layers(work, state)
    flip(layer, 0.5)
    with pytest.raises(InputError, match=r"layer-0000\.safetensors is damaged"):
        states.check_layers(work, state)
    layer.unlink()
    with pytest.raises(InputError, match=r"layer-0000\.safetensors cannot be read"):
        states.check_layers(work, state)


@pytest.mark.parametrize("steps", [10_000_000, 10**30])
def test_more_steps_than_can_be_saved_are_refused(source: Path, text: Path, tmp_path: Path, steps: int) -> None:
    assert "9,999,999" in run(*words(source, text, tmp_path / "out", "--steps", steps), code=2).stderr


@pytest.mark.slow
@pytest.mark.parametrize("mode", [[], ["--block-wise"], ["--teacher-samples", 4]])
def test_a_training_goes_on_from_the_state_before(
    source: Path, text: Path, tmp_path: Path, mode: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a damaged last state and an empty newer folder: the result is that of a training without a break."""
    from gemmaq.qat import trainer

    out, whole = tmp_path / "out", tmp_path / "whole" / "out"
    run(*words(source, text, whole, "--steps", 6, *mode))
    real, calls = trainer.step, []

    def step(*arguments: Any) -> float:
        calls.append(1)
        return real(*arguments) if len(calls) < 6 else float("nan")

    monkeypatch.setattr(trainer, "step", step)
    run(*words(source, text, out, "--steps", 6, "--save-steps", 2, *mode), code=3)
    monkeypatch.undo()
    work = tmp_path / "out.work"
    flip(work / "step-0000004" / "second.safetensors", 0.9)
    for path in work.glob("teacher-samples.*32"):
        flip(path, 0.5)
    (work / "step-0000009").mkdir()
    said = run(*words(source, text, out, "--steps", 6, "--resume", *mode)).stderr
    assert "step-0000004/second.safetensors is damaged" in said and "resuming from step 2" in said
    assert (out / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert not work.exists()
