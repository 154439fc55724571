"""The official Python client against our server: it answers as that client expects of the real one."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import oracles
from fake_ollama import FakeOllama
from inprocess import run

pytestmark = pytest.mark.oracle


@pytest.fixture
def client(ollama: FakeOllama, require: Callable[[bool, str], None]) -> Any:
    oracles.need(require, "ollama")
    return import_module("ollama").Client(host=ollama.host)


def refused(call: Callable[[], Any]) -> Any:
    with pytest.raises(import_module("ollama").ResponseError) as caught:
        call()
    return caught.value


def test_it_makes_what_install_makes(client: Any, ollama: FakeOllama, seeing: Path) -> None:
    """Blobs by the client's own digests, the model from files: the same layers as `gemmaq install`'s."""
    run("install", seeing, "--runtime", "ollama", "--name", "ours")
    ours = ollama.made["ours:latest"]
    for path in ollama.root.glob("sha256-*"):
        path.unlink()
    files = {path.name: client.create_blob(path) for path in seeing.glob("*.gguf")}
    assert set(files.values()) == ollama.blobs
    statuses = [
        part.status
        for part in client.create(
            model="theirs",
            files=files,
            template=ours.template,
            parameters=ours.parameters,
            license=ours.license,
            stream=True,
        )
    ]
    assert statuses == ["parsing GGUF", "parsing GGUF", "writing manifest", "success"]
    theirs = ollama.made["theirs:latest"]
    assert (theirs.models, theirs.projectors, theirs.template) == (ours.models, ours.projectors, ours.template)
    assert theirs.parameters == ours.parameters and theirs.license == ours.license
    assert {model.model for model in client.list().models} == {"ours:latest", "theirs:latest"}


def test_it_sees_what_install_made(client: Any, ollama: FakeOllama, chat: Path) -> None:
    run("install", chat, "--runtime", "ollama")
    shown = client.show("gemma-3-1b-it:q4_0")
    assert shown.template == ollama.made["gemma-3-1b-it:q4_0"].template and "Gemma" in shown.license
    assert client.create_blob(next(chat.glob("*.gguf"))) in ollama.blobs
    missing = refused(lambda: client.show("another"))
    assert missing.status_code == 404 and missing.error == "model 'another' not found"


def test_errors(client: Any, ollama: FakeOllama, chat: Path, split: Path) -> None:
    path = next(chat.glob("*.gguf"))
    ollama.faults["blob"] = "mismatch"
    wrong = refused(lambda: client.create_blob(path))
    assert wrong.status_code == 400 and "digest mismatch" in wrong.error
    ollama.faults.clear()
    files = {path.name: client.create_blob(path)}
    assert refused(lambda: client.create(model="bad name", files=files)).status_code == 400
    assert refused(lambda: client.create(model="gemma", files={"/" + path.name: files[path.name]})).status_code == 400
    ollama.faults["create"] = "late error"
    late = refused(lambda: list(client.create(model="gemma", files=files, stream=True)))
    assert late.status_code == -1 and "failed to quantize" in late.error
    ollama.faults.clear()
    shard = next(split.glob("*-00001-of-*.gguf"))
    part = {shard.name: client.create_blob(shard)}
    assert "shards, expected" in refused(lambda: list(client.create(model="gemma", files=part, stream=True))).error
    assert client.create(model="gemma", files=files).status == "success"


def test_template_detection(client: Any, ollama: FakeOllama, sources: Any, tmp_path: Path) -> None:
    """A template it knows, all but: the built-in one is taken, with a temperature of 0.1 where none is given."""
    from artifacts import FOREIGN, convert

    folder = convert(sources.foreign, tmp_path / "out")
    files = {path.name: client.create_blob(path) for path in folder.glob("*.gguf")}
    ollama.known["gemma3-instruct"] = FOREIGN + " " * 50
    client.create(model="near", files=files)
    assert ollama.made["near:latest"].template == "gemma3-instruct"
    assert ollama.made["near:latest"].parameters == {"stop": ["<end_of_turn>"], "temperature": 0.1}
    run("install", folder, "--runtime", "ollama", "--name", "ours")
    assert ollama.made["ours:latest"].parameters["temperature"] == 1
    ollama.known["gemma3-instruct"] = FOREIGN + " " * 100
    client.create(model="far", files=files)
    assert ollama.made["far:latest"].template is None and not ollama.made["far:latest"].parameters
