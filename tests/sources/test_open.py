"""What a user types, opened: folder, file, sample, repository."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from gemmaq.errors import InputError, NetworkError, NotFoundError
from gemmaq.hub import client
from gemmaq.progress import ProgressCallback
from gemmaq.sources.open import open_source, open_with_weights
from gemmaq.sources.pull import Download


def not_shown(files: Download) -> AbstractContextManager[ProgressCallback]:
    raise AssertionError("nothing is downloaded")


def test_a_folder_needs_no_download(tiny: Path) -> None:
    checkpoint = open_with_weights(str(tiny), not_shown)
    assert checkpoint.weights_here and checkpoint.tensors.keys() == open_source(str(tiny)).tensors.keys()


def test_what_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="does not exist"):
        open_source(str(tmp_path / "none"))
    with pytest.raises(NotFoundError, match="holds neither"):
        open_source(str(tmp_path))
    (tmp_path / "mlx").mkdir()
    (tmp_path / "mlx/config.json").touch()
    with pytest.raises(NotFoundError) as caught:
        open_source(str(tmp_path))
    assert caught.value.hint == f"name a folder in it, {tmp_path / 'mlx'} for example"
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match=r"is neither a model folder nor a GGUF file"):
        open_source(str(tmp_path / "notes.txt"))


def test_a_repository_offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(client, "is_offline", lambda: True)
    monkeypatch.setattr(client, "cache_folder", lambda repo: tmp_path / "cache")
    for attempt in (lambda: open_source("org/name"), lambda: open_with_weights("org/name", not_shown)):
        with pytest.raises(NetworkError, match="org/name is not cached") as failed:
            attempt()
        assert failed.value.hint == "gemmaq pull org/name while online"
