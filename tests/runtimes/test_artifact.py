"""A finished artifact as runtimes need it: its files, its name, its container."""

from __future__ import annotations

from pathlib import Path

import pytest

from artifacts import Sources, convert
from gemmaq.errors import InputError, NotFoundError
from gemmaq.runtimes.artifact import folder_of, read_artifact, split_label
from records import recorded


def test_files_of_a_gguf_artifact(seeing: Path, split: Path) -> None:
    artifact = read_artifact(seeing)
    (projector,) = seeing.glob("mmproj*.gguf")
    assert artifact.container == "gguf" and artifact.projector == projector
    assert artifact.tensor_files == (*artifact.weights, projector)
    assert set(artifact.others) == {path for path in seeing.iterdir() if path.suffix != ".gguf"}
    shards = sorted(split.glob("*.gguf"))
    assert read_artifact(shards[-1]).weights == tuple(shards)


def test_names(seeing: Path, tmp_path: Path) -> None:
    artifact = read_artifact(seeing)
    source = recorded(seeing)["source"]["name"]
    assert (artifact.name, artifact.repo, artifact.label) == (source, None, "Q4_0")
    assert artifact.conversion("mlx") == f"gemmaq convert {seeing} --to mlx --quant auto"
    assert split_label("model-Q4_K_M-00001-of-00002.gguf") == "Q4_K_M" and split_label("model.gguf") is None


def test_mlx_in_bf16_is_told_from_safetensors(sources: Sources, mlx: Path, tmp_path: Path) -> None:
    assert read_artifact(mlx).container == "mlx"
    assert read_artifact(sources.chat).container == "safetensors"
    floats = convert(sources.chat, tmp_path / "bf16", "--to", "mlx", "--quant", "bf16")
    artifact = read_artifact(floats)
    assert artifact.container == "mlx" and artifact.conversion("gguf") == f"gemmaq convert {floats} --to gguf"


def test_several_artifacts_or_none(sources: Sources, tmp_path: Path) -> None:
    both = convert(sources.chat, tmp_path / "both", "--to", "gguf", "--to", "mlx")
    with pytest.raises(InputError, match="holds 2 artifacts"):
        folder_of(both)
    with pytest.raises(NotFoundError, match="does not exist"):
        folder_of(tmp_path / "none")
