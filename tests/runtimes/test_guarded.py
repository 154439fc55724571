"""Hostile servers in Ollama's place: each request ends soon, in an error of the network, and in little memory."""

from __future__ import annotations

import http.client
import json
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gemmaq.errors import InputError, NetworkError
from gemmaq.hub.allowance import Allowance
from gemmaq.progress import ignore
from gemmaq.runtimes import ollama_api
from gemmaq.runtimes.guarded import answer as answered
from hostile_server import ANSWERS, OK, HostileServer, endless, whole

DIGEST = "sha256:" + "0" * 64
REQUEST = {"model": "gemma", "files": {}}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deadlines of less than a second."""
    for name in ("_ANSWER", "_SEND", "_WORK"):
        monkeypatch.setattr(ollama_api, name, 0.6)
    monkeypatch.setattr(ollama_api, "_ALL_WORK", 1.0)


def at(server: HostileServer) -> ollama_api.Address:
    host, _, port = server.host.partition(":")
    return ollama_api.Address("http", host, int(port))


def ends(call: Callable[[], object], error: type[Exception] = NetworkError, match: str | None = None) -> None:
    """In an error, within seconds, and in little memory."""
    before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(error, match=match):
        call()
    assert time.monotonic() - begun < 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("asked", ["version", "exists", "has_blob", "create", "send_blob"])
def test_hostile_answers(tmp_path: Path, name: str, asked: str) -> None:
    calls: dict[str, Callable[[ollama_api.Address], object]] = {
        "version": ollama_api.version,
        "exists": lambda at: ollama_api.exists(at, "gemma"),
        "has_blob": lambda at: ollama_api.has_blob(at, DIGEST),
        "create": lambda at: ollama_api.create(at, REQUEST, lambda status: None),
        "send_blob": lambda at: ollama_api.send_blob(at, DIGEST, path, progress=ignore),
    }
    path = tmp_path / "model.gguf"
    path.write_bytes(bytes(1000))
    with HostileServer(lambda line: ANSWERS[name]()) as server:
        headed = ("dripping status", "dripping head", "endless continue", "endless headers", "silence", "nonsense")
        if (asked == "has_blob" and name not in (*headed, "gzip bomb")) or (name == "deep" and asked != "create"):
            if (name, asked) == ("deep", "version"):
                ends(lambda: calls[asked](at(server)), match="is not Ollama")
            else:
                calls[asked](at(server))  # the body of an answer that says yes by its status does not matter
        else:
            ends(lambda: calls[asked](at(server)))
    assert server.sent < 200_000_000


def lines(*texts: bytes, pause: float = 0.0) -> Iterator[bytes]:
    yield OK + b"\r\n"
    for text in texts:
        time.sleep(pause)
        yield text


def statuses(pause: float) -> Iterator[bytes]:
    yield OK + b"\r\n"
    while True:
        time.sleep(pause)
        yield b'{"status": "working"}\n'


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda: statuses(0.05), "has not answered for a long time|answers too slowly"),
        (lambda: statuses(0.0), "bytes that such an answer may have|has not answered|too slowly"),
        (lambda: endless(b'{"status": "' + b"x" * 100_000), "a line without an end"),
        (lambda: lines(b"[" * 60_000 + b"\n"), "cut off"),
        (lambda: lines(b'{"status": ' + b"9" * 10_000 + b"}\n"), "cut off"),
        (lambda: lines(b"\n" * 1000), "closed the connection"),
        (lambda: lines(b"[1]\n"), "closed the connection"),
        (lambda: lines(b'{"status": "wri'), "cut off"),
    ],
)
def test_hostile_statuses(answer: Callable[[], Iterator[bytes]], words: str) -> None:
    with HostileServer(lambda line: answer()) as server:
        ends(lambda: ollama_api.create(at(server), REQUEST, lambda status: None), match=words)


def test_statuses_prolong_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work that takes longer than a sign of life may take is waited for as long as there are some."""
    monkeypatch.setattr(ollama_api, "_ALL_WORK", 60.0)
    texts = [b'{"status": "working"}\n'] * 5 + [b'{"status": "success"}\n']
    heard: list[str] = []
    with HostileServer(lambda line: lines(*texts, pause=0.25)) as server:
        ollama_api.create(at(server), REQUEST, heard.append)
    assert heard == ["working"] * 5


def test_long_words_are_cut() -> None:
    said = json.dumps({"error": "x" * 1_000_000}).encode()
    with HostileServer(lambda line: whole(said, b"HTTP/1.1 500 Oh\r\n")) as server:
        with pytest.raises(InputError) as failed:
            ollama_api.exists(at(server), "gemma")
        assert len(failed.value.message) < 700


def test_a_server_that_takes_nothing(tmp_path: Path) -> None:
    """It reads no body: sending ends as well."""
    path = tmp_path / "model.gguf"
    with path.open("wb") as file:
        file.truncate(1 << 27)

    class Deaf(HostileServer):
        def _answer(self, connection: object) -> None:
            self._closed.wait(30)

    with Deaf(lambda line: []) as server:
        ends(lambda: ollama_api.send_blob(at(server), DIGEST, path, progress=ignore), match="long time")


def test_host_names_that_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    for host in ("a..b", "x" * 300):
        ends(lambda host=host: ollama_api.version(ollama_api.Address("http", host, 80)), match="unknown host name")


def test_bytes_are_counted_over_the_whole_answer() -> None:
    with HostileServer(lambda line: whole(bytes(5000))) as server:
        connection = http.client.HTTPConnection(server.host)
        connection.request("GET", "/")
        with pytest.raises(NetworkError, match="more than the 4,000 bytes"):
            answered(connection, Allowance("here", 4000, 10, hint="")).read()
        connection.close()
