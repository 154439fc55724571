"""The registry of runtimes: a new one is a file and an entry, and `gemmaq install` has it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gemmaq.errors import UsageError
from gemmaq.files import sums
from gemmaq.runtimes import RUNTIMES, Options, Runtime, find, prepare
from inprocess import run


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Runtime:
    """A runtime of one file and one entry."""
    runtime = Runtime("toy", "Toy", ("gguf",), "name", "toy_runtime", options=("dest",))
    monkeypatch.setitem(RUNTIMES, "toy", runtime)
    return runtime


def test_a_toy_is_installed_by_the_command(toy: Runtime, chat: Path, tmp_path: Path) -> None:
    flags = ("--runtime", "toy", "--dest", tmp_path, "--name", "mine")
    dry = run("install", chat, *flags, "--dry-run")
    (weights,) = chat.glob("*.gguf")
    assert dry.stdout == f"{weights.name}\n" and not (tmp_path / "mine").exists()
    done = run("install", chat, *flags)
    assert done.stdout == "toy run mine\n" and "the toy is ready" in done.stderr
    assert (tmp_path / "mine" / weights.name).read_bytes() == weights.read_bytes()


def test_its_report_is_that_of_the_command(toy: Runtime, chat: Path, tmp_path: Path) -> None:
    report = json.loads(run("install", chat, "--runtime", "Toy", "--dest", tmp_path, "--json").stdout)
    digests = {name: digest for name, digest in (sums.read(chat) or {}).items() if name.endswith(".gguf")}
    assert report == {
        "schema": "gemmaq.install/1",
        "runtime": "toy",
        "artifact": str(chat),
        "files": digests,
        "copied": 1,
    }
    quiet = run("install", chat, "--runtime", "toy", "--dest", tmp_path, "--name", "again", "-q")
    assert (quiet.stdout, quiet.stderr) == (f"{tmp_path / 'again'}\n", "")


def test_what_the_entry_does_not_list_is_refused(toy: Runtime, mlx: Path, chat: Path, tmp_path: Path) -> None:
    flags = ("--runtime", "toy", "--dest", tmp_path)
    refused = run("install", mlx, *flags, code=3).stderr
    assert "mlx artifact, which Toy cannot load" in refused and "--to gguf" in refused
    assert "--model-yaml is not an option for Toy" in run("install", chat, *flags, "--model-yaml", code=2).stderr
    assert "the toy has no folder" in run("install", chat, "--runtime", "toy", code=2).stderr
    assert not list(tmp_path.iterdir())


def test_options_that_all_runtimes_have_need_no_entry(toy: Runtime, tmp_path: Path) -> None:
    assert callable(prepare(toy, Options(name="mine", dest=tmp_path, force=True)))
    with pytest.raises(UsageError, match="--model-yaml"):
        prepare(toy, Options(dest=tmp_path, model_yaml=True))


@pytest.mark.parametrize("name", ["lmstudio", "LM Studio", "lm-studio"])
def test_spellings(name: str) -> None:
    assert find(name) is RUNTIMES["lmstudio"]


def test_an_unknown_runtime() -> None:
    with pytest.raises(UsageError, match="unknown runtime 'vllm'") as refused:
        find("vllm")
    assert refused.value.hint == "known: ollama, lmstudio"
