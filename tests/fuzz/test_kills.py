"""A slice of the kills of `kills.py`, and that it finds what is bad."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import kills

from fake_hub import FakeHub


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, FakeHub, dict[str, kills.Sound]]]:
    folder = tmp_path_factory.mktemp("kills")
    with FakeHub(folder / "hub") as hub:
        models = kills.made(folder / "models")
        hub.add(kills.REPO, models / "small")
        yield models, hub, {name: kills.undisturbed(name, models, hub) for name in ("force", "pull")}


@pytest.mark.slow
def test_what_is_killed_is_made_again(place: tuple[Path, FakeHub, dict[str, kills.Sound]]) -> None:
    models, hub, sound = place
    assert [kills.try_kill(number, list(sound), sound, models, hub) for number in range(4)] == [[]] * 4


@pytest.mark.slow
def test_another_result_is_told(place: tuple[Path, FakeHub, dict[str, kills.Sound]]) -> None:
    models, hub, sound = place
    other = {"force": replace(sound["force"], files={**sound["force"].files, "out/params": b"other"})}
    assert "out/params" in str(kills.try_kill(1, ["force"], other, models, hub))
