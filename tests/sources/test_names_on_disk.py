"""Sources under other names: digests of Ollama, files without an ending, folders of the Hub's cache."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from damage import small_model
from inprocess import run

COMMITS = ("a" * 40, "b" * 40)


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("gguf")
    run("convert", small_model(root / "gemma-3-small"), "--quant", "q4_0", "-o", root / "out")
    (path,) = (root / "out").glob("*.gguf")
    return path


def name_of(source: Path) -> str:
    return str(json.loads(run("inspect", source, "--json").stdout)["name"])


@pytest.mark.parametrize("name", [f"sha256-{'0f' * 32}", f"sha256:{'0f' * 32}"])
def test_a_blob_is_known_by_its_magic_and_named_by_its_header(name: str, gguf: Path, tmp_path: Path) -> None:
    blob = Path(shutil.copy(gguf, tmp_path / name))
    assert name_of(blob).lower() == "gemma-3-small"
    run("convert", blob, "--quant", "q4_0", "-o", tmp_path / "again")
    (again,) = (tmp_path / "again").glob("*.gguf")
    assert again.name.lower() == gguf.name.lower()
    run("estimate-vram", blob)


@pytest.mark.parametrize("name", ["gemma-3-small-Q4_0", "gemma-3-small-Q4_0.bin", "gemma-3-small-Q4_0.GGUF"])
def test_a_gguf_without_its_ending_is_read(name: str, gguf: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(gguf, tmp_path / name))
    assert name_of(path).startswith("gemma-3-small")


def test_another_file_is_still_refused(tmp_path: Path) -> None:
    (tmp_path / "sha256-00").write_text('{"config": {}}')
    assert "neither a model folder nor a GGUF file" in run("inspect", tmp_path / "sha256-00", code=3).stderr


def cached(root: Path, commits: tuple[str, ...], main: str | None) -> Path:
    """A repository in the Hub's cache; each snapshot has links to blobs."""
    folder = root / "models--org--gemma-3-small"
    (folder / "refs").mkdir(parents=True)
    (folder / "blobs").mkdir()
    if main is not None:
        (folder / "refs" / "main").write_text(main)
    for number, commit in enumerate(commits):
        made = small_model(root / f"made{number}")
        snapshot = folder / "snapshots" / commit
        snapshot.mkdir(parents=True)
        for path in made.iterdir():
            blob = folder / "blobs" / f"{number}{path.name}"
            shutil.copy(path, blob)
            (snapshot / path.name).symlink_to(blob)
    return folder


def test_the_snapshot_that_main_names_is_opened(tmp_path: Path) -> None:
    folder = cached(tmp_path, COMMITS, COMMITS[1])
    config = folder / "snapshots" / COMMITS[1] / "config.json"
    document = json.loads(config.read_text()) | {"max_position_embeddings": 77}
    config.unlink()
    config.write_text(json.dumps(document))
    facts = json.loads(run("inspect", folder, "--json").stdout)
    assert (facts["context"], facts["name"]) == (77, "gemma-3-small")
    run("convert", folder, "--quant", "q8_0", "-o", tmp_path / "out")
    assert (tmp_path / "out" / "gemma-3-small-Q8_0.gguf").is_file()


def test_the_only_snapshot_does_without_a_name(tmp_path: Path) -> None:
    assert name_of(cached(tmp_path, COMMITS[:1], None)) == "gemma-3-small"


def test_several_snapshots_without_a_name_are_named(tmp_path: Path) -> None:
    said = run("inspect", cached(tmp_path, COMMITS, None), code=3).stderr
    assert "holds 2 snapshots" in said and COMMITS[0] in said


def test_a_snapshot_that_is_missing_is_named(tmp_path: Path) -> None:
    said = run("inspect", cached(tmp_path, COMMITS[:1], COMMITS[1]), code=5).stderr
    assert f"has no snapshot {COMMITS[1]}" in said
    assert "holds no snapshot" in run("inspect", cached(tmp_path / "empty", (), None), code=5).stderr
