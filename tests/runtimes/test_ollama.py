"""`gemmaq install --runtime ollama` against a server of our own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import ollama_rules as rules
from artifacts import Sources, convert
from fake_ollama import FakeOllama
from gemmaq.errors import UsageError
from gemmaq.runtimes.artifact import read_artifact
from gemmaq.runtimes.ollama import check_name, default_name
from inprocess import Done, run


def install(folder: Path, *flags: object, code: int = 0) -> Done:
    return run("install", folder, "--runtime", "ollama", *flags, code=code)


def gguf(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.gguf"))


def test_a_model_is_made(chat: Path, ollama: FakeOllama) -> None:
    done = install(chat)
    assert done.stdout == "ollama run gemma-3-1b-it:q4_0\n"
    made = ollama.made["gemma-3-1b-it:q4_0"]
    (digest,) = ollama.blobs
    assert made.models == [[digest]] and not made.projectors
    assert made.parameters == {"stop": ["<end_of_turn>"], "temperature": 1, "top_k": 32, "top_p": 0.9}
    assert made.template is not None and "<start_of_turn>user" in made.template
    assert "Gemma Terms of Use" in made.license[0] and made.requires is None


def test_projector_and_requires(seeing: Path, ollama: FakeOllama) -> None:
    install(seeing, "--name", "me/eye", "-q")
    made = ollama.made["me/eye:latest"]
    assert (len(made.models), len(made.projectors), made.requires) == (1, 1, "0.30.4")
    assert rules.is_projector(rules.keys(ollama.blob(made.projectors[0])))


def test_shards(split: Path, ollama: FakeOllama) -> None:
    install(split)
    (shards,) = ollama.made["gemma-3-1b-it:q4_0"].models
    assert len(shards) == len(gguf(split)) > 1
    assert ollama.made["gemma-3-1b-it:q4_0"].requires == "0.30.0"


def test_a_chat_template_of_its_own_is_left_alone(sources: Sources, tmp_path: Path, ollama: FakeOllama) -> None:
    install(convert(sources.foreign, tmp_path / "out"))
    made = ollama.made["gemma-3-1b-tools:q4_0"]
    assert (made.template, made.requires) == (None, "0.30.0")
    assert made.parameters["stop"] == ["<end_of_turn>"] and made.parameters["temperature"] == 1


def test_turns_that_ollama_has_code_for(gemma4s: dict[str, Path], ollama: FakeOllama) -> None:
    """The request names the code by the kind of model, without template or stop text."""
    for kind, renderer in (("small", "gemma4-small"), ("large", "gemma4-large")):
        assert "warning" not in install(gemma4s[kind], "--name", kind).stderr
        made = ollama.made[f"{kind}:latest"]
        assert (made.renderer, made.parser, made.template) == (renderer, "gemma4", None)
        assert made.parameters == {"temperature": 1, "top_k": 64, "top_p": 0.95} and made.requires == "0.30.0"
        assert "Apache License" in made.license[0]


def test_turns_that_ollama_adds_to_every_model_of_an_architecture(gemma4s: dict[str, Path], ollama: FakeOllama) -> None:
    assert "warning: Ollama writes the turns of Gemma 4" in install(gemma4s["pretrained"], "--name", "base").stderr
    made = ollama.made["base:latest"]
    assert (made.renderer, made.parser, made.parameters) == ("gemma4-large", "gemma4", {})
    list(ollama.create({"model": "as-it-comes", "files": {"a.gguf": made.models[0][0]}}))
    assert ollama.made["as-it-comes:latest"].renderer == "gemma4"


def test_a_drafter_is_no_part_of_the_model(whole: Path, ollama: FakeOllama) -> None:
    """It is sent like the other files, and named apart from them; the projector is among them."""
    report = json.loads(install(whole, "--json").stdout)
    (made,) = ollama.made.values()
    (drafter,) = made.drafts
    assert rules.keys(ollama.blob(drafter))["general.architecture"] == "gemma4-assistant"
    assert (len(made.models), len(made.models[0]), len(made.projectors), made.requires) == (1, 1, 1, "0.30.9")
    assert made.renderer == "gemma4-small" and rules.hears(rules.keys(ollama.blob(made.projectors[0])))
    assert report["request"]["draft_files"] == {next(whole.glob("mtp-*")).name: drafter}
    assert {Path(file["path"]) for file in report["files"]} == set(whole.glob("*.gguf"))
    assert len(ollama.blobs) == len(gguf(whole)) == 3


@pytest.mark.parametrize(("version", "code"), [("0.30.8", 3), ("0.30.9", 0)])
def test_a_drafter_wants_a_later_version(version: str, code: int, whole: Path, ollama: FakeOllama) -> None:
    ollama.version = version
    assert ("needs 0.30.9" in install(whole, code=code).stderr) == bool(code)
    assert bool(ollama.made) == (code == 0)


def test_a_pretrained_model_completes(sources: Sources, tmp_path: Path, ollama: FakeOllama) -> None:
    install(convert(sources.pretrained, tmp_path / "out"))
    made = ollama.made["gemma-3-1b-pt:q4_0"]
    assert made.template == "{{ .Prompt }}" and not {"stop", "temperature"} & made.parameters.keys()


def test_what_the_server_has_is_not_sent_again(seeing: Path, ollama: FakeOllama) -> None:
    install(seeing)
    received = ollama.received
    assert received == sum(path.stat().st_size for path in gguf(seeing))
    again = install(seeing, "--name", "another", "--json")
    assert ollama.received == received and "another:latest" in ollama.made
    assert all(file["present"] for file in json.loads(again.stdout)["files"])


def test_json(chat: Path, ollama: FakeOllama) -> None:
    report = json.loads(install(chat, "--json").stdout)
    assert (report["schema"], report["runtime"], report["name"]) == ("gemmaq.install/1", "ollama", "gemma-3-1b-it:q4_0")
    (path,) = gguf(chat)
    (file,) = report["files"]
    assert (file["path"], file["bytes"], file["present"]) == (str(path), path.stat().st_size, False)
    assert report["request"]["files"] == {path.name: f"sha256:{file['sha256']}"}
    assert report["server"] == f"http://{ollama.host}" and report["replaces"] is False
    assert install(chat, "--force", "-q").stdout == "gemma-3-1b-it:q4_0\n"


def test_dry_run_changes_nothing(chat: Path, ollama: FakeOllama) -> None:
    done = install(chat, "--dry-run")
    assert "to send" in done.stdout and "nothing was done" in done.stderr
    assert not ollama.blobs and not ollama.made
    assert not any("create" in asked or asked.startswith("POST /api/blobs") for asked in ollama.asked)


def test_a_model_of_that_name_is_kept(chat: Path, seeing: Path, ollama: FakeOllama) -> None:
    install(chat, "--name", "gemma")
    before = ollama.made["gemma:latest"]
    assert "--force" in install(seeing, "--name", "Gemma", code=7).stderr
    assert ollama.made["gemma:latest"] is before and len(ollama.blobs) == 1
    assert json.loads(install(seeing, "--name", "gemma", "--force", "--json").stdout)["replaces"] is True
    assert ollama.made["gemma:latest"].projectors


def test_without_a_server(chat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("OLLAMA_HOST", f"127.0.0.1:{taken.getsockname()[1]}")
        assert "ollama serve" in install(chat, code=6).stderr
        assert "ollama serve" in install(chat, "--dry-run", code=6).stderr
    monkeypatch.setenv("OLLAMA_HOST", "no.such.host.invalid")
    assert "OLLAMA_HOST" in install(chat, code=6).stderr


@pytest.mark.parametrize(
    ("version", "code"), [("0.30.3", 3), ("0.9.12", 3), ("0.30.4-rc1", 0), ("0.0.0", 0), ("1.0.0", 0)]
)
def test_versions(version: str, code: int, seeing: Path, ollama: FakeOllama) -> None:
    ollama.version = version
    done = install(seeing, code=code)
    assert bool(ollama.made) == (code == 0)
    if code:
        assert version in done.stderr and "0.30.4" in done.stderr and not ollama.received


def test_an_old_server_does_for_plain_text(chat: Path, ollama: FakeOllama) -> None:
    ollama.version = "0.9.0"
    install(chat)


@pytest.mark.parametrize(
    ("where", "fault", "code", "words"),
    [
        ("version", "other", 6, "not Ollama"),
        ("blob", "cut", 6, "lost"),
        ("blob", "mismatch", 8, "digest mismatch"),
        ("blob", "full", 7, "no space left"),
        ("create", "error", 3, "unsupported architecture"),
        ("create", "late error", 3, "failed to quantize"),
        ("create", "cut", 6, "closed the connection"),
        ("create", "silence", 6, "closed the connection"),
        ("create", "garbage", 6, "cut off"),
    ],
)
def test_faults(where: str, fault: str, code: int, words: str, chat: Path, ollama: FakeOllama) -> None:
    ollama.faults[where] = fault
    assert words in install(chat, code=code).stderr
    assert not ollama.made and not list(ollama.root.glob("part-*"))
    assert bool(ollama.blobs) == (where == "create")
    ollama.faults.clear()
    install(chat)
    assert ollama.made


def test_nothing_reaches_the_server_of_a_damaged_artifact(seeing: Path, tmp_path: Path, ollama: FakeOllama) -> None:
    folder = Path(shutil.copytree(seeing, tmp_path / "artifact"))
    install(folder, "--dry-run")
    ollama.asked.clear()
    random = np.random.default_rng(7)
    paths = [path for path in sorted(folder.iterdir()) for _ in range(4)]
    for path in paths:
        whole = bytearray(path.read_bytes())
        whole[random.integers(len(whole))] ^= 1 << random.integers(8)
        before = path.read_bytes()
        path.write_bytes(whole)
        install(folder, code=8)
        path.write_bytes(before)
    (folder / "extra.gguf").write_bytes(b"")
    install(folder, code=8)
    (folder / "extra.gguf").unlink()
    for path in sorted(folder.iterdir()):
        path.rename(tmp_path / "away")
        install(folder, code=8)
        (tmp_path / "away").rename(path)
    assert set(ollama.asked) == {"GET /api/version"}
    install(folder)


def test_others_artifacts(chat: Path, split: Path, seeing: Path, tmp_path: Path, ollama: FakeOllama) -> None:
    """Without SHA256SUMS: checked as far as it can be."""
    (path,) = gguf(chat)
    short = tmp_path / path.name
    short.write_bytes(path.read_bytes()[:-100])
    install(short, code=8)
    shutil.copy(path, short)
    install(short, "--name", "alone")
    part = tmp_path / "part"
    part.mkdir()
    for shard in gguf(split)[1:]:
        shutil.copy(shard, part)
    install(part, code=8)
    two = tmp_path / "two"
    two.mkdir()
    for file in gguf(seeing):
        shutil.copy(file, two)
    install(two)
    shutil.copy(gguf(seeing)[-1], two / "mmproj-second.gguf")
    assert "2 mmproj files" in install(two, "--force", code=8).stderr
    assert ollama.made.keys() == {"alone:latest", "gemma-3-4b-it-qat:q4_0"}


def test_other_containers_are_refused(mlx: Path, sources: Sources, tmp_path: Path, ollama: FakeOllama) -> None:
    for folder in (mlx, sources.chat, convert(sources.chat, tmp_path / "w4", "--to", "safetensors")):
        assert "--to gguf" in install(folder, code=3).stderr
    both = convert(sources.chat, tmp_path / "both", "--to", "gguf", "--to", "mlx")
    assert f"{both}/gguf" in install(both, code=3).stderr
    install(both / "gguf")
    install(tmp_path / "nothing", code=5)
    assert not any("another" in name for name in ollama.made)


def test_usage(chat: Path, ollama: FakeOllama, tmp_path: Path) -> None:
    assert "ollama, lmstudio" in run("install", chat, "--runtime", "vllm", code=2).stderr
    install(chat, "--dest", tmp_path, code=2)
    install(chat, "--model-yaml", code=2)
    install(chat, "--name", "two words", code=2)
    assert not ollama.made


def test_names() -> None:
    names = ["a", "a:b", "A_b.c:Q4_0", "me/a", "hf.co/me/a:q4_0", "localhost:5000/me/a", "_x", "a" * 80, "1:2.3-4"]
    bad = ["", ":", "a:", ":b", "/a", "a/", "a b", "a@sha256", "-a", ".a", "a:.b", "me.x/a", "a/b/c/d", "ä", "a" * 81]
    for name in names:
        assert rules.is_name(name) and check_name(name) == name
    for name in bad:
        assert not rules.is_name(name), name
        with pytest.raises(UsageError):
            check_name(name)


def test_the_default_name(chat: Path, seeing: Path, tmp_path: Path) -> None:
    assert default_name(read_artifact(seeing)) == "gemma-3-4b-it-qat:q4_0"
    odd = tmp_path / "My Gemma (best)!-Q4_0.gguf"
    shutil.copy(gguf(chat)[0], odd)
    assert rules.is_name(default_name(read_artifact(odd)))


def start(folder: Path, host: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "gemmaq", "install", str(folder), "--runtime", "ollama"]
    return subprocess.Popen(command, env={**os.environ, "OLLAMA_HOST": host}, stderr=subprocess.PIPE, text=True)


def stop(process: subprocess.Popen[str]) -> None:
    """Ctrl-C: code 130, and no traceback."""
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in errors


def test_interrupted_while_the_server_is_silent(chat: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        process = start(chat, f"127.0.0.1:{silent.getsockname()[1]}")
        connection, _ = silent.accept()
        time.sleep(0.2)
        stop(process)
        connection.close()


def test_interrupted_while_sending(sample_q4_0: Path, ollama: FakeOllama) -> None:
    """A file of 240 MB, sent in blocks: memory stays what it was, and the server keeps nothing of it."""
    ollama.faults["blob"] = "slow"
    process = start(sample_q4_0, ollama.host)
    wait(lambda: ollama.received > 16 << 20)
    peak = Path(f"/proc/{process.pid}/status").read_text() if sys.platform == "linux" else "VmHWM: 0 kB"
    stop(process)
    wait(lambda: not any(ollama.root.iterdir()))
    assert 16 << 20 < ollama.received < sample_q4_0.stat().st_size and not ollama.made
    assert int(peak.partition("VmHWM:")[2].split()[0]) < 200_000


def wait(until: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not until():
        assert time.monotonic() < end
        time.sleep(0.02)
