"""OLLAMA_HOST in every form, read as Ollama reads it."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

import oracles
from fake_ollama import FakeOllama
from gemmaq.runtimes import ollama_api
from inprocess import run

FORMS = {
    "": "http://127.0.0.1:11434",
    "1.2.3.4": "http://1.2.3.4:11434",
    ":56789": "http://127.0.0.1:56789",
    "1.2.3.4:56789": "http://1.2.3.4:56789",
    "http://1.2.3.4": "http://1.2.3.4:80",
    "https://1.2.3.4": "https://1.2.3.4:443",
    "https://1.2.3.4:56789": "https://1.2.3.4:56789",
    "example.com": "http://example.com:11434",
    "example.com:56789": "http://example.com:56789",
    "http://example.com": "http://example.com:80",
    "https://example.com": "https://example.com:443",
    "example.com/": "http://example.com:11434",
    "example.com/path": "http://example.com:11434/path",
    "example.com:56789/path/": "http://example.com:56789/path",
    "https://example.com:56789/deep/path": "https://example.com:56789/deep/path",
    "[2001:db8::1]": "http://[2001:db8::1]:11434",
    "[2001:db8::1]:56789": "http://[2001:db8::1]:56789",
    "https://[2001:db8::1]": "https://[2001:db8::1]:443",
    "[2001:db8::1]:56789/path": "http://[2001:db8::1]:56789/path",
}
SERVERS_OWN = {
    "0.0.0.0": "http://127.0.0.1:11434",
    "0.0.0.0:8080": "http://127.0.0.1:8080",
    "http://0.0.0.0:8080": "http://127.0.0.1:8080",
    "[::]:8080": "http://[::1]:8080",
    "::1": "http://[::1]:11434",
    "  example.com:1 ": "http://example.com:1",
    '"example.com:1"': "http://example.com:1",
    "example.com:99999": "http://example.com:11434",
    "https://example.com:x": "https://example.com:443",
    "ollama.com": "https://ollama.com:443",
}
"""Forms that Ollama itself takes and its Python client does not: addresses to listen at, quotes, bad ports."""


@pytest.mark.parametrize(("value", "meant"), [*FORMS.items(), *SERVERS_OWN.items()])
def test_forms(value: str, meant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", value)
    assert str(ollama_api.address()) == meant


def test_no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OLLAMA_HOST", raising=False)
    assert str(ollama_api.address()) == "http://127.0.0.1:11434"


@pytest.mark.oracle
@pytest.mark.parametrize("value", FORMS)
def test_as_the_official_client(value: str, require: Callable[[bool, str], None]) -> None:
    oracles.need(require, "ollama")
    assert import_module("ollama._client")._parse_host(value) == FORMS[value]


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "http://127.0.0.1:{}/", "0.0.0.0:{}", ":{}", "localhost:{}"])
def test_reached(form: str, chat: Path, ollama: FakeOllama, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", form.format(ollama.port))
    run("install", chat, "--runtime", "ollama")
    assert ollama.made


def test_behind_a_path(chat: Path, ollama: FakeOllama, monkeypatch: pytest.MonkeyPatch) -> None:
    ollama.path = "/models/ollama"
    monkeypatch.setenv("OLLAMA_HOST", f"http://127.0.0.1:{ollama.port}/models/ollama/")
    run("install", chat, "--runtime", "ollama")
    assert ollama.made and all(asked.split()[1].startswith("/models/ollama/api/") for asked in ollama.asked)
    monkeypatch.setenv("OLLAMA_HOST", f"http://127.0.0.1:{ollama.port}/elsewhere")
    assert "not Ollama" in run("install", chat, "--runtime", "ollama", "--force", code=6).stderr
