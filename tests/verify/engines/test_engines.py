"""Which runtime is taken, and what is said where there is none."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from gemmaq.checkpoint import Checkpoint
from gemmaq.encodings import ENCODINGS
from gemmaq.errors import UsageError
from gemmaq.models.roles import Role
from gemmaq.planning.containers import CONTAINERS
from gemmaq.sources.open import open_source
from gemmaq.verify import engines


@pytest.fixture(scope="module")
def model(runs: dict[str, Path]) -> Checkpoint:
    return open_source(str(runs["gguf"]))


def have(monkeypatch: pytest.MonkeyPatch, *packages: str, path: Path | None = None) -> None:
    """Have no other packages, and no other programs than those in a folder."""
    monkeypatch.setattr(engines, "find_spec", lambda name: object() if name in packages else None)
    monkeypatch.setenv("PATH", str(path or "/nowhere"))


def program(folder: Path, name: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_every_format_has_a_runtime_whose_script_is_there() -> None:
    formats = {format for container in CONTAINERS.values() for format in container.formats}
    assert {format for engine in engines.ENGINES.values() for format in engine.formats} == formats
    for name, engine in engines.ENGINES.items():
        assert name == engine.name and (Path(engines.__file__).parent / engine.script).is_file()


def test_the_first_that_is_installed_is_taken(
    model: Checkpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server = program(tmp_path, "llama-server")
    have(monkeypatch, "xllamacpp", path=tmp_path)
    assert engines.choose(model) == engines.Installed(engines.ENGINES["xllamacpp"], Path(sys.executable))
    assert engines.choose(model, "llama-server").program == server
    have(monkeypatch, path=tmp_path)
    assert engines.choose(model).engine.name == "llama-server"
    folder = replace(model, format="compressed-tensors")
    have(monkeypatch, "transformers", "compressed_tensors", "vllm")
    assert engines.choose(folder).engine.name == "transformers"
    have(monkeypatch, "transformers", "vllm")
    assert engines.choose(folder).engine.name == "vllm"


def test_a_program_of_another_environment_is_run_by_its_python(
    model: Checkpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = replace(model, format="safetensors")
    real = program(tmp_path / "tool/bin", "vllm")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/vllm").symlink_to(real)
    have(monkeypatch, path=tmp_path / "bin")
    with pytest.raises(UsageError):  # no Python beside it
        engines.choose(folder)
    python = program(real.parent, "python")
    assert engines.choose(folder) == engines.Installed(engines.ENGINES["vllm"], python.resolve())


@pytest.mark.parametrize("format", ["gguf", "mlx", "compressed-tensors", "safetensors"])
def test_what_to_install_is_said(format: str, model: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    have(monkeypatch)
    with pytest.raises(UsageError, match="is installed: looked for") as caught:
        engines.choose(replace(model, format=format))
    assert all("pip install" in way or "PATH" in way for way in str(caught.value.hint).split(", or "))
    assert all(engine.install for engine in engines.ENGINES.values())


def test_a_runtime_that_does_not_suit_is_refused(model: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    have(monkeypatch, "mlx", "mlx_lm")
    with pytest.raises(UsageError, match="unknown runtime 'ollama'"):
        engines.choose(model, "ollama")
    with pytest.raises(UsageError, match=r"mlx-lm does not load .*GGUF") as caught:
        engines.choose(model, "mlx-lm")
    assert caught.value.hint == "these do: xllamacpp, llama-server"
    with pytest.raises(UsageError, match="llama-server is not installed"):
        engines.choose(model, "llama-server")


def test_quantized_experts_of_a_folder_are_not_for_transformers(
    model: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    have(monkeypatch, "transformers", "compressed_tensors", "vllm")
    name, tensor = next(iter(model.matrices.items()))
    experts, place = replace(tensor, encoding=ENCODINGS["q4_0"]), replace(tensor.place, role=Role.EXPERTS)
    monkeypatch.setattr(type(experts), "place", place)
    folder = replace(model, format="compressed-tensors", tensors={name: experts})
    assert engines.choose(folder).engine.name == "vllm"
