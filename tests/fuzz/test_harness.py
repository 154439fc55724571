"""A slice of the damaged inputs that `harness.py` makes, and that it finds what is bad."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import harness
from harness import try_input
from sources import KINDS, Model

from inprocess import Done


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    place = tmp_path_factory.mktemp("models")
    return {name: kind.make(place / name) for name, kind in KINDS.items()}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return KINDS["recipe"].make(tmp_path_factory.mktemp("recipe") / "model")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_damaged_inputs_are_read_or_refused(
    kind: str, models: dict[str, Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEMMAQ_CACHE", str(tmp_path / "cache"))
    room = tmp_path / "room"
    room.mkdir()
    number = sorted(KINDS).index(kind)
    findings = [
        finding
        for seed in range(number, 12 * len(KINDS), len(KINDS))
        for finding in try_input(seed, models, room, KINDS)
    ]
    assert not findings, "\n".join(map(str, findings))


def ends(code: int, stderr: str = "") -> Any:
    return lambda *_: Done(code, "", stderr)


def raises(*_: object) -> Done:
    raise KeyError("bug")


def leaves(*arguments: str) -> Done:
    Path(arguments[-1]).with_name("half.partial").touch()
    return Done(3, "", "error: it is damaged")


def never_ends(*_: object) -> Done:
    while True:
        pass


@pytest.mark.parametrize(
    ("command", "what"),
    [
        (ends(0), None),
        (ends(3, "error: it is damaged"), None),
        (ends(1, "error: KeyError"), "exit code 1"),
        (ends(3), "without an error"),
        (ends(0, "\x1b[2J"), "control characters"),
        (raises, "KeyError"),
        (leaves, "left half.partial"),
        (never_ends, "is not done after"),
    ],
)
def test_what_is_bad_is_found(
    command: Any, what: str | None, recipe: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inprocess.run_any", command)
    monkeypatch.setattr(harness, "SECONDS", 1)
    number = next(n for n in range(sorted(KINDS).index("recipe"), 10**6, len(KINDS)))
    findings = try_input(number, {"recipe": recipe}, tmp_path, KINDS)
    assert len(findings) == (what is not None) and (what is None or what in findings[0].what)
    assert list(tmp_path.iterdir()) == []
