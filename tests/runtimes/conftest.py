"""Fixtures: small artifacts, and a fake Ollama."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import artifacts
from artifacts import Sources, convert
from fake_ollama import FakeOllama


@pytest.fixture(scope="session")
def sources(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Sources:
    return artifacts.sources(tiny, tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="session")
def chat(sources: Sources, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF artifact of a model that chats, without chat template."""
    return convert(sources.chat, tmp_path_factory.mktemp("made") / "chat")


@pytest.fixture(scope="session")
def split(sources: Sources, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in shards."""
    return convert(sources.chat, tmp_path_factory.mktemp("made") / "split", "--max-shard-size", "100k")


@pytest.fixture(scope="session")
def seeing(sources: Sources, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF artifact with an mmproj file."""
    return convert(sources.seeing, tmp_path_factory.mktemp("made") / "seeing")


@pytest.fixture(scope="session")
def mlx(sources: Sources, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLX artifact, text only."""
    return convert(sources.chat, tmp_path_factory.mktemp("made") / "mlx", "--to", "mlx")


@pytest.fixture
def ollama(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeOllama]:
    """A server, and an environment that names it."""
    root = tmp_path / "ollama"
    root.mkdir()
    with FakeOllama(root) as server:
        monkeypatch.setenv("OLLAMA_HOST", server.host)
        yield server
