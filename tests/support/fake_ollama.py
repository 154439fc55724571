"""An Ollama server of our own: a real HTTP server with blobs on disk that answers `create` as the real one does.

with FakeOllama(tmp_path) as ollama:
    ollama.faults["blob"] = "cut"
    run("install", folder, "--runtime", "ollama")  # with OLLAMA_HOST=ollama.host

As of version 0.33 (August 2026): 200 or 404 to HEAD of a blob, 201 to one that arrives whole, 400 to a wrong digest;
statuses as lines of JSON in chunks, and an error among them after a 200; code for the turns of a file whose
architecture has some, unless the request names both halves of it.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any

import ollama_rules as rules

_DIGEST = re.compile(r"sha256[:-][0-9a-f]{64}")
BUILT_IN = {"stop": ["<end_of_turn>"], "temperature": 0.1}
"""What Ollama sets for a model whose template it knows to be Gemma 3's."""


@dataclass
class Made:
    """A model that was created.

    Attributes:
        models: the text models, each a list of digests in the order of the shards.
        projectors: digests.
        drafts: digests of drafters.
    """

    models: list[list[str]]
    projectors: list[str]
    drafts: list[str]
    template: str | None
    parameters: dict[str, Any]
    license: list[str]
    requires: str | None
    renderer: str | None = None
    parser: str | None = None


@dataclass
class FakeOllama:
    """The server; it answers between `with` and its end.

    Attributes:
        root: folder of the blobs.
        version: what it says it is.
        path: before every request's own.
        known: chat templates it knows, by name.
        faults: `blob` -> cut, mismatch, full, slow; `create` -> error, late error, cut, silence, garbage;
            `version` -> other.
        made: models by full name, lower case.
        asked: method and path of every request.
        received: bytes of bodies of blobs.
    """

    root: Path
    version: str = "0.33.0"
    path: str = ""
    known: dict[str, str] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    made: dict[str, Made] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    received: int = 0

    def __enter__(self) -> FakeOllama:
        fake = self

        class Handler(_Handler):
            ollama = fake

        self._server = _Quiet(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def host(self) -> str:
        """A value of OLLAMA_HOST."""
        return f"127.0.0.1:{self.port}{self.path}"

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def blobs(self) -> set[str]:
        """Digests of what it has."""
        return {path.name.replace("-", ":") for path in self.root.glob("sha256-*")}

    def blob(self, digest: str) -> Path:
        return self.root / digest.replace(":", "-")

    def create(self, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The statuses of making a model, and perhaps an error at the end."""
        files: dict[str, str] = request["files"]
        drafts: dict[str, str] = request.get("draft_files") or {}
        for digest in (*files.values(), *drafts.values()):
            yield {"status": "parsing GGUF"}
            if not self.blob(digest).is_file():
                yield {"error": f"open {self.blob(digest)}: no such file or directory"}
                return
        try:
            found = {name: rules.keys(self.blob(files[name])) for name in files}
            groups = rules.merged(found)
            rules.merged({name: rules.keys(self.blob(digest)) for name, digest in drafts.items()})
        except rules.RuleError as error:
            yield {"error": str(error)}
            return
        projectors = [files[name] for name in files if rules.is_projector(found[name])]
        models = [[files[name] for name in group] for group in groups if files[group[0]] not in projectors]
        template, defaults = request.get("template"), {}
        for jinja in (str(keys.get("tokenizer.chat_template", "")) for keys in found.values()):
            near = rules.detected(jinja, self.known) if jinja else None
            if near is not None:
                yield {"status": f"using autodetected template {near}"}
                template, defaults = template or near, BUILT_IN
        if self.faults.get("create") == "late error":
            yield {"error": "exit status 1: llama_model_quantize: failed to quantize"}
            return
        parameters = {**defaults, **request.get("parameters", {})}
        renderer, parser = request.get("renderer"), request.get("parser")
        if any(keys.get("general.architecture") == "gemma4" for keys in found.values()) and not (renderer and parser):
            renderer, parser = renderer or "gemma4", parser or "gemma4"
            parameters.setdefault("stop", ["<turn|>"])
        yield {"status": "writing manifest"}
        said = request.get("license") or []
        licenses = [said] if isinstance(said, str) else list(said)
        made = Made(models, projectors, list(drafts.values()), template, parameters, licenses, request.get("requires"))
        made.renderer, made.parser = renderer, parser
        self.made[full_name(request["model"])] = made
        yield {"status": "success"}


def full_name(name: str) -> str:
    """The name a server files a model under."""
    return (name if name.rfind(":") > name.rfind("/") else f"{name}:latest").lower()


class _Quiet(ThreadingHTTPServer):
    """Takes it without a word that a client is gone."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    ollama: FakeOllama

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _route(self) -> None:
        fake = self.ollama
        fake.asked.append(f"{self.command} {self.path}")
        if not self.path.startswith(fake.path):
            return self._reply(404, "404 page not found")
        path = self.path.removeprefix(fake.path)
        if path.startswith("/api/blobs/") and self.command in ("HEAD", "POST"):
            return self._blob(path.removeprefix("/api/blobs/"))
        answer = _ROUTES.get((self.command, path))
        return answer(self) if answer is not None else self._reply(404, "404 page not found")

    do_GET = do_POST = do_HEAD = _route

    def _version(self) -> None:
        if self.ollama.faults.get("version") == "other":
            return self._reply(200, "<html>It works!</html>")
        return self._reply(200, {"version": self.ollama.version})

    def _tags(self) -> None:
        self._reply(200, {"models": [{"model": name, "name": name} for name in self.ollama.made]})

    def _show(self) -> None:
        name = self._json().get("model", "")
        if not rules.is_name(name):
            return self._reply(400, {"error": "invalid model name"})
        made = self.ollama.made.get(full_name(name))
        if made is None:
            return self._reply(404, {"error": f"model '{name}' not found"})
        return self._reply(
            200, {"template": made.template or "", "license": "\n".join(made.license), "details": {}, "model_info": {}}
        )

    def _blob(self, digest: str) -> None:
        fake = self.ollama
        if not _DIGEST.fullmatch(digest):
            return self._reply(400, {"error": "invalid digest format"})
        if self.command == "HEAD":
            return self._reply(200 if fake.blob(digest).is_file() else 404)
        size = int(self.headers["Content-Length"])
        if fake.blob(digest).is_file():
            return self._early(size, 200)
        fault = fake.faults.get("blob")
        if fault == "full":
            return self._early(size, 500, {"error": f"write {fake.root}/sha256-1: no space left on device"})
        part = fake.root / f"part-{threading.get_ident()}"
        made = hashlib.sha256()
        with part.open("wb") as file:
            while size:
                block = self.rfile.read(min(size, 1 << 16))
                if not block or fault == "cut":
                    part.unlink()
                    return self._hang_up()
                block = b"\0" + block[1:] if fault == "mismatch" else block
                time.sleep(0.01 if fault == "slow" else 0)
                made.update(block)
                file.write(block)
                fake.received += len(block)
                size -= len(block)
        if f"sha256:{made.hexdigest()}" != digest:
            part.unlink()
            got = f"sha256:{made.hexdigest()}"
            return self._reply(400, {"error": f'digest mismatch, expected "{digest}", got "{got}"'})
        part.rename(fake.blob(digest))
        return self._reply(201)

    def _early(self, size: int, status: int, body: object = None) -> None:
        """Answer before the body is read; a client that still sends it must not find the door shut on the answer."""
        self.close_connection = True
        self._reply(status, body)
        self.wfile.flush()
        while size and (block := self.rfile.read(min(size, 1 << 16))):
            size -= len(block)

    def _create(self) -> None:
        fake, request = self.ollama, self._json()
        for name, digest in ((request.get("files") or {}) | (request.get("draft_files") or {})).items():
            if name.startswith("/") or ".." in PurePosixPath(name).parts:
                return self._reply(400, {"error": "file path must be relative"})
            if not _DIGEST.fullmatch(digest):
                return self._reply(400, {"error": "invalid digest format"})
        if not rules.is_name(request.get("model", "")):
            return self._reply(400, {"error": "invalid model name"})
        if not request.get("files"):
            return self._reply(400, {"error": "neither 'from' or 'files' was specified"})
        fault = fake.faults.get("create")
        if fault == "error":
            return self._reply(500, {"error": "unsupported architecture"})
        if request.get("stream") is False:
            last = list(fake.create(request))[-1]
            return self._reply(500 if "error" in last else 200, last)
        return self._stream(fake.create(request), fault)

    def _stream(self, messages: Iterator[dict[str, Any]], fault: str | None) -> None:
        """Lines of JSON, one a chunk."""
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number, message in enumerate(messages):
            line = json.dumps(message).encode() + b"\n"
            if number == 1 and fault in ("cut", "silence", "garbage"):
                if fault == "garbage":
                    self._chunk(b'{"status": "wri\n')
                if fault != "silence":
                    return self._hang_up()
                break
            self._chunk(line)
            if "error" in message:
                break
        self._chunk(b"")
        return None

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def _json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
        return found

    def _reply(self, status: int, body: object = None) -> None:
        data = b"" if body is None else body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json" if isinstance(body, dict) else "text/plain")
        self.send_header("Content-Length", str(len(data)))
        if self.close_connection:
            self.send_header("Connection", "close")  # or a client may use the connection again while it is closed
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


_ROUTES = {
    ("GET", "/api/version"): _Handler._version,
    ("GET", "/api/tags"): _Handler._tags,
    ("POST", "/api/show"): _Handler._show,
    ("POST", "/api/create"): _Handler._create,
}
