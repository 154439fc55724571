"""`gemmaq install` as scripts see it; what runtimes get is tested in tests/runtimes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from damage import tree
from inprocess import VERIFICATION, run


def test_a_dry_run_and_a_real_one(small_gguf: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    words = ("install", small_gguf, "--runtime", "lmstudio", "--dest", models, "--name", "acme/small")
    before = tree(tmp_path)
    planned = json.loads(run(*words, "--dry-run", "--json").stdout)
    assert planned["schema"] == "gemmaq.install/1"
    assert (planned["runtime"], planned["artifact"]) == ("lmstudio", str(small_gguf))
    assert tree(tmp_path) == before
    done = run(*words, "-q")
    assert (done.stdout, done.stderr) == (f"{models / 'acme/small'}\n", "")
    assert list((models / "acme/small").glob("*.gguf"))


def test_a_damaged_artifact_is_not_installed(small_gguf: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(small_gguf, tmp_path / "out"))
    weights = next(folder.glob("*.gguf"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"\xff")
    (tmp_path / "models").mkdir()
    before = tree(tmp_path)
    done = run("install", folder, "--runtime", "lmstudio", "--dest", tmp_path / "models", code=VERIFICATION)
    assert "gemmaq verify" in done.stderr and tree(tmp_path) == before


def test_a_runtime_that_is_none(small_gguf: Path) -> None:
    assert "ollama" in run("install", small_gguf, "--runtime", "nope", code=2).stderr
    run("install", small_gguf.parent / "absent", "--runtime", "lmstudio", code=5)
