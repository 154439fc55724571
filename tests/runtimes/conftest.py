"""Fixtures: small artifacts, and a fake Ollama."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import artifacts
import gemma4
import gemma4_drafter
import gemma4_tokenizer
import gemma4_towers
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


@pytest.fixture(scope="session")
def gemma4s(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """GGUF artifacts of Gemma 4: one of each kind of turns in Ollama, and one that does not chat."""
    root = tmp_path_factory.mktemp("gemma4")
    names = {"small": "gemma-4-E2B-it", "large": "my-tune-it", "pretrained": "gemma-4-12B"}
    made = {}
    for kind, name in names.items():
        config = gemma4.EFFECTIVE if kind == "small" else gemma4.UNIFIED
        source = gemma4_tokenizer.write(gemma4.write(root / name, config))
        template = source / "chat_template.jinja"
        if kind == "pretrained":
            template.unlink()
        elif kind == "small":
            template.write_text(
                "{% if enable_thinking %}<|turn>system\n<|think|><turn|>\n{% endif %}" + template.read_text()
            )
        made[kind] = convert(source, root / kind, "--quant", "q4_0")
    return made


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF artifact of Gemma 4 with an mmproj file for images and sound, and a drafter."""
    root = tmp_path_factory.mktemp("whole")
    source = gemma4_towers.write(root / "gemma-4-E2B-it", gemma4_towers.KINDS["effective"])
    drafter = gemma4_drafter.write(root / "gemma-4-E2B-it-assistant", gemma4_drafter.DRAFTERS["effective"])
    return convert(source, root / "out", "--quant", "q4_0", "--draft", drafter)


@pytest.fixture(scope="session")
def drafter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF artifact of a drafter alone."""
    root = tmp_path_factory.mktemp("drafter")
    source = gemma4_drafter.write(root / "gemma-4-E2B-it-assistant", gemma4_drafter.DRAFTERS["effective"])
    return convert(source, root / "out", "--quant", "q8_0")


@pytest.fixture
def ollama(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeOllama]:
    """A server, and an environment that names it."""
    root = tmp_path / "ollama"
    root.mkdir()
    with FakeOllama(root) as server:
        monkeypatch.setenv("OLLAMA_HOST", server.host)
        yield server
