"""A repository that grows: types pushed one after the other, interrupted, and at once, end in one card and record."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from fake_hub import FakeHub, Fault
from gemmaq.artifact import push as pushing
from gemmaq.artifact.footprint import UNKNOWN
from gemmaq.artifact.publish import read
from gemmaq.artifact.push import Target
from gemmaq.hub import Ref
from gemmaq.progress import ignore
from home import Here, Settle
from inprocess import run

REPO = "acme/gemma-3-tiny-GGUF"
PARTS = (("q4_0", "q8_0", "q4_1"), ("q5_0", "q5_1"), ("f16", "bf16", "iq4_nl"))
TYPES = [name.upper() for part in PARTS for name in part]


@pytest.fixture(scope="module")
def parts(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Eight types of one model in three artifacts."""
    root = tmp_path_factory.mktemp("parts")
    for number, part in enumerate(PARTS):
        run("convert", tiny, "--quant", ",".join(part), "-q", "-o", root / str(number))
    return [root / str(number) for number in range(len(PARTS))]


@pytest.fixture
def here(hub: FakeHub, settle: Settle) -> Here:
    return settle(hub, "hf_write")


def push(here: Here, *arguments: object) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(here.run("push", *arguments, "--json").stdout)
    return report


def file(name: str) -> str:
    return f"gemma-3-tiny-{name}.gguf"


def check_whole(hub: FakeHub, here: Here, types: list[str], folder: Path) -> None:
    """Card, checksums and record of the repository name these types, and what is pulled can be verified."""
    card, sums = hub.read(REPO, "README.md").decode(), hub.read(REPO, "SHA256SUMS").decode()
    record = json.loads(hub.read(REPO, "gemmaq.json"))
    assert sorted(model["type"] for model in record["models"]) == sorted(types)
    rows = [line for line in card.splitlines() if line.startswith("| [`")]
    assert sorted(row.split("`")[1] for row in rows) == sorted(map(file, types))
    assert card.count("**recommended**") == 1 and card.count(" | `nearest` |") >= len(set(types) - {"F16", "BF16"})
    assert all(f"  {file(name)}\n" in sums for name in types)
    here.run("pull", REPO, "--include", "*", "-o", folder)
    here.run("verify", folder)


def test_eight_types_in_three_pushes_one_killed_and_two_at_once(
    hub: FakeHub, here: Here, parts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stalled = Fault("upload", "stall", times=None, after_bytes=-1, host="cdn")
    hub.faults.append(stalled)
    command = [sys.executable, "-m", "gemmaq", "push", str(parts[0]), REPO, "-q"]
    process = subprocess.Popen(command, env=hub.env(tmp_path / "home", "hf_write"), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not stalled.hits and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert set(hub.commit(REPO).files) == {".gitattributes"}, "nothing is there before all of it is"
    hub.faults.clear()
    push(here, parts[0], REPO)
    check_whole(hub, here, TYPES[:3], tmp_path / "first")

    commit, second = pushing.client.commit, read(parts[2], ignore)

    def commit_after_another(ref: Ref, change: Any, *, bars: bool) -> tuple[str, str]:
        monkeypatch.setattr(pushing.client, "commit", commit)
        pushing.push(second, Target(ref), memory=UNKNOWN)
        return commit(ref, change, bars=bars)

    monkeypatch.setattr(pushing.client, "commit", commit_after_another)
    push(here, parts[1], REPO)
    check_whole(hub, here, TYPES, tmp_path / "whole")
    hub.reset()
    assert not any(entry["sent"] for entry in push(here, parts[0], REPO)["files"])


def test_what_is_there_stays(hub: FakeHub, here: Here, parts: list[Path]) -> None:
    push(here, parts[0], REPO)
    first = hub.read(REPO, "Modelfile")
    report = push(here, parts[1], REPO, "--dry-run")
    assert set(report["kept"]) >= {file(name) for name in TYPES[:3]} and report["replaced"] == []
    assert "stays" in here.run("push", parts[1], REPO, "--dry-run").stdout
    push(here, parts[1], REPO)
    assert hub.read(REPO, "Modelfile") == first, "Ollama's settings name the model that came first"
    assert f"FROM ./{file('Q4_0')}".encode() in first


def test_a_card_that_was_changed_there_stays(hub: FakeHub, here: Here, parts: list[Path]) -> None:
    hub.add(REPO, {"README.md": "# Mine\n", "notes.txt": "mine\n"})
    done = here.run("push", parts[1], REPO)
    assert "README.md of the repository is not gemmaq's" in done.stderr
    assert hub.read(REPO, "README.md") == b"# Mine\n"
    listed = hub.read(REPO, "SHA256SUMS").decode()
    assert all(f"  {name}\n" in listed for name in ("README.md", "notes.txt", file("Q5_0")))


def test_another_model_is_refused(hub: FakeHub, here: Here, parts: list[Path], tiny: Path, tmp_path: Path) -> None:
    push(here, parts[0], REPO)
    other = shutil.copytree(tiny, tmp_path / "gemma-3-other")
    here.run("convert", other, "--quant", "q4_0", "-q", "-o", tmp_path / "out")
    failed = here.run("push", tmp_path / "out", REPO, code=7)
    assert "holds gemma-3-tiny, this is gemma-3-other" in failed.stderr and "--subfolder" in failed.stderr
    push(here, tmp_path / "out", REPO, "--subfolder", "other")
    assert "other/gemma-3-other-Q4_0.gguf" in hub.commit(REPO).files
    assert "gemma-3-other" not in hub.read(REPO, "README.md").decode()
    assert "gemma-3-other" in hub.read(REPO, "other/README.md").decode()


def test_models_in_another_container_keep_their_record(
    hub: FakeHub, here: Here, parts: list[Path], tiny: Path, tmp_path: Path
) -> None:
    push(here, parts[1], REPO)
    run("convert", tiny, "--to", "mlx", "-q", "-o", tmp_path / "mlx")
    before = hub.read(REPO, "gemmaq.json")
    done = here.run("push", tmp_path / "mlx", REPO, code=7)
    assert "holds gguf models, this is mlx" in done.stderr and "--subfolder" in done.stderr
    assert hub.read(REPO, "gemmaq.json") == before
    push(here, tmp_path / "mlx", REPO, "--subfolder", "mlx")
    assert hub.read(REPO, "gemmaq.json") == before


def test_a_record_of_somebody_else_is_an_error(hub: FakeHub, here: Here, parts: list[Path]) -> None:
    for content in ("{", "[]", '{"schema": "other/1"}'):
        hub.add(REPO, {"gemmaq.json": content})
        assert "gemmaq.json" in here.run("push", parts[1], REPO, code=3).stderr


def test_a_pull_request_with_a_message(hub: FakeHub, here: Here, parts: list[Path]) -> None:
    push(here, parts[0], REPO)
    report = push(here, parts[1], REPO, "--create-pr", "--message", "Two more types")
    assert "/discussions/1" in report["url"] and file("Q5_0") not in hub.commit(REPO).files
    made = hub.commit(REPO, "refs/pr/1")
    assert made.message == "Two more types" and file("Q5_0") in made.files


@pytest.mark.parametrize("name", ["../x", "a//b", ".git", "/x"])
def test_subfolders_that_are_none(here: Here, parts: list[Path], name: str) -> None:
    assert "is not a folder of a repository" in here.run("push", parts[1], REPO, "--subfolder", name, code=2).stderr


def test_the_card_names_models_in_folders_that_are_not_pushed(
    hub: FakeHub, here: Here, parts: list[Path], tiny: Path, tmp_path: Path
) -> None:
    push(here, parts[1], REPO)
    here.run("convert", tiny, "--to", "mlx", "--quant", "affine4,affine8", "-q", "-o", tmp_path / "mlx")
    push(here, tmp_path / "mlx", REPO)
    card = hub.read(REPO, "README.md").decode()
    assert "## GGUF" in card and "## MLX" in card and file("Q5_0") in card and "AFFINE8" in card
    here.run("pull", REPO, "--include", "*", "-o", tmp_path / "all")
    listed = (tmp_path / "all/SHA256SUMS").read_text()
    assert f"  {file('Q5_1')}\n" in listed and "  affine4/model.safetensors\n" in listed
