"""Ollama's REST API, as far as making a model needs it. Nothing here knows what a model is."""

from __future__ import annotations

import http.client
import ipaddress
import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from gemmaq import __version__
from gemmaq.errors import AuthError, GemmaqError, InputError, NetworkError, OutputError, VerificationError
from gemmaq.progress import Progress, ProgressCallback

_VARIABLE = "OLLAMA_HOST"
_BLOCK = 1 << 20
_CONNECT, _ANSWER, _WORK = 10.0, 60.0, 1800.0
"""Seconds to wait for a connection, for an answer, and for the next word while the server works on gigabytes."""

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Server:
    """Where Ollama listens.

    Attributes:
        scheme: `http` or `https`.
        host: name or address, without brackets.
        port: number.
        path: before every request's own, without slash at its end.
    """

    scheme: str
    host: str
    port: int
    path: str = ""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path}"


def server() -> Server:
    """Where OLLAMA_HOST says, read as Ollama reads it; 127.0.0.1:11434 where it says nothing.

    A host without port has 11434, or the scheme's own behind `http://` and `https://`. An address to listen at, 0.0.0.0
    or ::, is reached at this machine's own.
    """
    said = os.environ.get(_VARIABLE, "").strip().strip("\"'")
    scheme, separator, rest = said.partition("://")
    if not separator:
        scheme, rest = ("https", "ollama.com:443") if said == "ollama.com" else ("http", said)
    default = _PORTS.get(scheme, 11434) if separator else 11434
    place, _, path = rest.partition("/")
    host, port = _split(place, default)
    try:
        address = ipaddress.ip_address(host)
        host = str(address)
        if address.is_unspecified:
            host = "127.0.0.1" if address.version == 4 else "::1"
    except ValueError:
        pass
    return Server(scheme, host or "127.0.0.1", port, f"/{quote(path.strip('/'), '/%')}" if path.strip("/") else "")


def _split(place: str, default: int) -> tuple[str, int]:
    """Host and port; an IPv6 address with a port has brackets."""
    if place.startswith("["):
        host, _, rest = place[1:].partition("]")
        port = rest.removeprefix(":")
    elif place.count(":") == 1:
        host, _, port = place.partition(":")
    else:
        host, port = place, ""
    return host, int(port) if port.isascii() and port.isdigit() and int(port) < 1 << 16 else default


def version(at: Server) -> str:
    """The server's version.

    Raises:
        NetworkError: there is none, or something else answers.
    """
    status, body = _ask(at, "GET", "/api/version")
    try:
        found = json.loads(body)["version"]
    except (ValueError, KeyError, TypeError):
        found = None
    if status != 200 or not isinstance(found, str):
        raise NetworkError(f"what answers at {at} is not Ollama ({status})", f"check {_VARIABLE}")
    return found


def exists(at: Server, model: str) -> bool:
    """Whether the server has a model of that name.

    Raises:
        GemmaqError: it cannot be asked.
    """
    status, body = _ask(at, "POST", "/api/show", {"model": model})
    if status in (200, 404):
        return status == 200
    raise refusal(at, f"asked for {model}", _words(body), status)


def has_blob(at: Server, digest: str) -> bool:
    """Whether the server has a file.

    Args:
        digest: `sha256:` and the hex.

    Raises:
        GemmaqError: it cannot be asked.
    """
    status, body = _ask(at, "HEAD", f"/api/blobs/{digest}")
    if status in (200, 404):
        return status == 200
    raise refusal(at, f"asked for {digest}", _words(body), status)


def send_blob(at: Server, digest: str, path: Path, progress: ProgressCallback) -> None:
    """Send a file in blocks, its length told beforehand. What does not arrive whole, the server throws away.

    Args:
        digest: what the server is to find it has.
        progress: called after every block.

    Raises:
        VerificationError: what arrived has another digest.
        NetworkError: the connection was lost.
    """
    with path.open("rb") as file, _connected(at) as connection:
        size = os.fstat(file.fileno()).st_size
        connection.putrequest("POST", at.path + f"/api/blobs/{digest}", skip_accept_encoding=True)
        for name, value in _headers("application/octet-stream", size).items():
            connection.putheader(name, value)
        _patient(connection, _WORK)
        done = 0
        try:
            connection.endheaders()
            while block := file.read(min(_BLOCK, size - done)):
                connection.send(block)
                done += len(block)
                progress(Progress("sending", done, size, "bytes", item=path.name))
            if done < size:
                raise InputError(f"{path} became shorter while it was read", "leave it alone and run it again")
        except (BrokenPipeError, ConnectionResetError):
            pass  # it may have answered before it had all
        response = connection.getresponse()
        body = response.read()
    if response.status not in (200, 201):
        raise refusal(at, f"sent {path.name}", _words(body), response.status)


def create(at: Server, request: Mapping[str, Any], told: Callable[[str], None]) -> None:
    """Make a model of files that the server has.

    Args:
        request: fields of /api/create.
        told: called with every status.

    Raises:
        InputError: the server refuses the model, at once or on the way.
        NetworkError: the connection was lost before the end.
    """
    name = request["model"]
    body = json.dumps({**request, "stream": True}).encode()
    with _connected(at) as connection:
        connection.request("POST", at.path + "/api/create", body, _headers("application/json", len(body)))
        _patient(connection, _WORK)
        response = connection.getresponse()
        if response.status != 200:
            raise refusal(at, f"asked to make {name}", _words(response.read()), response.status)
        for line in response:
            message = _message(line)
            if "error" in message:
                raise refusal(at, f"asked to make {name}", str(message["error"]))
            status = str(message.get("status", ""))
            if status == "success":
                return
            told(status)
    raise NetworkError(f"{at} closed the connection before {name} was made", "run it again; files it has are kept")


def refusal(at: Server, what: str, words: str, status: int | None = None) -> GemmaqError:
    """What the server answers instead of doing it, in its own words and with our exit code."""
    message = f"Ollama at {at}, {what}, says: {words or 'nothing'}" + (f" ({status})" if status else "")
    if "no space left" in words:
        return OutputError(message, "free space where Ollama keeps its models")
    if "digest mismatch" in words:
        return VerificationError(message, "the file changed while it was sent, or on the way; run it again")
    if status in (401, 403):
        return AuthError(message, f"check {_VARIABLE}")
    if status in (404, 405):
        return NetworkError(message, f"check {_VARIABLE}, and whether that Ollama is of this year")
    return InputError(message)


def _ask(at: Server, method: str, path: str, value: object = None) -> tuple[int, bytes]:
    """A small request, and its answer."""
    body = None if value is None else json.dumps(value).encode()
    with _connected(at) as connection:
        headers = _headers("application/json", len(body)) if body is not None else _headers()
        connection.request(method, at.path + path, body, headers)
        _patient(connection, _ANSWER)
        response = connection.getresponse()
        return response.status, response.read()


def _headers(kind: str | None = None, length: int = 0) -> dict[str, str]:
    always = {"User-Agent": f"gemmaq/{__version__}", "Accept": "application/json, application/x-ndjson"}
    return always | ({"Content-Type": kind, "Content-Length": str(length)} if kind else {})


@contextmanager
def _connected(at: Server) -> Iterator[http.client.HTTPConnection]:
    """A connection, closed at the end; what goes wrong on it in our words.

    Raises:
        NetworkError: it cannot be made, or is lost.
    """
    kind = http.client.HTTPSConnection if at.scheme == "https" else http.client.HTTPConnection
    connection = kind(at.host, at.port, timeout=_CONNECT)
    try:
        try:
            connection.connect()
        except OSError as error:
            raise _absent(at, error) from error
        yield connection
    except TimeoutError as error:
        raise NetworkError(
            f"{at} has said nothing for a long time", "see what Ollama is doing, and run it again"
        ) from error
    except (ConnectionError, http.client.HTTPException) as error:
        what = str(error) or type(error).__name__
        raise NetworkError(f"the connection to {at} was lost: {what}", "run it again; files it has are kept") from error
    finally:
        connection.close()


def _absent(at: Server, error: OSError) -> NetworkError:
    reason = "its name is not found" if isinstance(error, socket.gaierror) else error.strerror or str(error)
    if os.environ.get(_VARIABLE, "").strip():
        return NetworkError(f"no Ollama at {at}, where {_VARIABLE} says: {reason}", "start it there: ollama serve")
    return NetworkError(f"no Ollama at {at}: {reason}", f"start it: ollama serve; or say where it is: {_VARIABLE}=host")


def _patient(connection: http.client.HTTPConnection, seconds: float) -> None:
    if connection.sock is not None:
        connection.sock.settimeout(seconds)


def _message(line: bytes) -> dict[str, Any]:
    """A line of a stream of JSON objects; an empty one says nothing."""
    try:
        found = json.loads(line) if line.strip() else {}
    except ValueError as error:
        raise NetworkError(
            f"Ollama's answer is cut off: {line[:80]!r}", "run it again; files it has are kept"
        ) from error
    return found if isinstance(found, dict) else {}


def _words(body: bytes) -> str:
    """What an answer says is wrong."""
    try:
        found = json.loads(body)
        return str(found["error"])
    except (ValueError, KeyError, TypeError):
        return body.decode("utf-8", "replace").strip()[:200]
