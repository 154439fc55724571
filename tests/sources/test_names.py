"""Names of models and repositories in what a user types."""

from __future__ import annotations

from pathlib import Path

import pytest

from gemmaq.hub import Ref
from gemmaq.sources.names import missing, name_of_file, name_of_folder, repository


def test_a_path_that_exists_wins_over_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert repository("org/name@v1") == Ref("org/name", "v1")
    assert repository("sample:gemma-3-270m") is None
    (tmp_path / "org/name").mkdir(parents=True)
    assert repository("org/name") is None


def test_a_snapshot_is_called_what_its_repository_is(tmp_path: Path) -> None:
    cached = tmp_path / "models--google--gemma-3-4b-it" / "snapshots" / ("0" * 40)
    assert name_of_folder(cached) == "gemma-3-4b-it"
    assert name_of_folder(tmp_path / "my model") == "my model"


def test_a_file_is_called_what_it_holds() -> None:
    assert name_of_file(Path("x/gemma-3-27b-it-Q4_0-00001-of-00003.gguf")) == "gemma-3-27b-it"
    assert name_of_file(Path("gemma-3-4b-it.gguf")) == "gemma-3-4b-it"


def test_the_file_of_a_drafter_is_called_what_its_repository_is() -> None:
    assert name_of_file(Path("x/mtp-gemma-4-12B-it-Q4_0.gguf")) == "gemma-4-12B-it-assistant"
    assert name_of_file(Path("mtp-gemma-4-12B-it.gguf")) == "gemma-4-12B-it-assistant"


def test_what_is_missing_comes_with_what_may_be_meant(tmp_path: Path) -> None:
    (tmp_path / "my-model").mkdir()
    hints = {
        "gemma-3-4b-it": "google/gemma-3-4b-it?",
        "4b": "google/gemma-3-4b-it?",
        "12b": "google/gemma-3-12b-it or google/gemma-4-12B-it?",
        "E2B": "google/gemma-4-E2B-it",
        "medgemma-4b-it": "google/medgemma-4b-it?",
        str(tmp_path / "mymodel"): f"{tmp_path / 'my-model'}?",
        str(tmp_path / "zzz"): "a repository: org/name",
        "nowhere/at/all": "a repository: org/name",
    }
    for name, words in hints.items():
        error = missing(name)
        assert error.exit_code == 5 and words in str(error.hint), (name, error.hint)
