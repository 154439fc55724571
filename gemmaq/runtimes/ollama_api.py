"""The part of Ollama's REST API that creates a model. Nothing here knows what a model is."""

from __future__ import annotations

import http.client
import ipaddress
import json
import math
import os
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from gemmaq import __version__
from gemmaq.errors import AuthError, GemmaqError, InputError, NetworkError, OutputError, VerificationError
from gemmaq.hub.allowance import Allowance
from gemmaq.progress import Progress, ProgressCallback
from gemmaq.runtimes.guarded import answer

_VARIABLE = "OLLAMA_HOST"
_BLOCK = 1 << 20
_CONNECT, _ANSWER, _SEND = 10.0, 60.0, 300.0
"""Seconds to wait for a connection, for an answer, and until the server has taken a block."""
_WORK, _ALL_WORK = 1800.0, 6 * 3600.0
"""Seconds to wait for a sign of life while the server works on gigabytes, and for the end of that work."""
_ANSWER_BYTES, _WORK_BYTES, _LINE_BYTES = 1 << 23, 1 << 24, 1 << 16
"""Bytes of an answer, of all statuses of some work, and of one of them.

No read is without a limit: http.client reserves memory for all that an answer claims to have."""
_WORDS = 500
"""Characters of a server's message that are shown."""

_PORTS = {"http": 80, "https": 443}
_DEFAULT_PORT = 11434
_RETRY = "run it again: files already sent are kept"


@dataclass(frozen=True, slots=True)
class Address:
    """Address of an Ollama server.

    Attributes:
        scheme: `http` or `https`.
        host: Host name or IP address, without brackets.
        port: Port number.
        path: Prefix of every request's path, without a slash at its end.
    """

    scheme: str
    host: str
    port: int
    path: str = ""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path}"


def address() -> Address:
    """The address in OLLAMA_HOST, read as Ollama reads it; 127.0.0.1:11434 if the variable is not set.

    A host without a port gets 11434, or the scheme's port after `http://` and `https://`. For 0.0.0.0 and ::, where a
    server listens on all interfaces, this is the loopback address.
    """
    value = os.environ.get(_VARIABLE, "").strip().strip("\"'")
    scheme, separator, rest = value.partition("://")
    if not separator:
        scheme, rest = ("https", "ollama.com:443") if value == "ollama.com" else ("http", value)
    default = _PORTS.get(scheme, _DEFAULT_PORT) if separator else _DEFAULT_PORT
    netloc, _, path = rest.partition("/")
    host, port = _split(netloc, default)
    try:
        ip = ipaddress.ip_address(host)
        host = str(ip)
        if ip.is_unspecified:
            host = "127.0.0.1" if ip.version == 4 else "::1"
    except ValueError:
        pass
    return Address(scheme, host or "127.0.0.1", port, f"/{quote(path.strip('/'), '/%')}" if path.strip("/") else "")


def _split(netloc: str, default: int) -> tuple[str, int]:
    """Host and port; an IPv6 address with a port is in brackets."""
    if netloc.startswith("["):
        host, _, rest = netloc[1:].partition("]")
        port = rest.removeprefix(":")
    elif netloc.count(":") == 1:
        host, _, port = netloc.partition(":")
    else:
        host, port = netloc, ""
    return host, int(port) if port.isascii() and port.isdigit() and int(port) < 1 << 16 else default


def version(at: Address) -> str:
    """Version of the server.

    Raises:
        NetworkError: No server answers, or one that is not Ollama.
    """
    status, body = _ask(at, "GET", "/api/version")
    try:
        number = json.loads(body)["version"]
    except (ValueError, KeyError, TypeError, RecursionError):
        number = None
    if status != 200 or not isinstance(number, str) or len(number) > 100:
        raise NetworkError(f"the server at {at} is not Ollama ({status})", f"check {_VARIABLE}")
    return number


def exists(at: Address, model: str) -> bool:
    """Whether the server has a model of that name.

    Raises:
        GemmaqError: It does not answer the question.
    """
    status, body = _ask(at, "POST", "/api/show", value={"model": model})
    if status in (200, 404):
        return status == 200
    raise refusal(at, f"asked for {model}", _words(body), status=status)


def has_blob(at: Address, digest: str) -> bool:
    """Whether the server has the file with this digest (`sha256:` and hex).

    Raises:
        GemmaqError: It does not answer the question.
    """
    status, body = _ask(at, "HEAD", f"/api/blobs/{digest}")
    if status in (200, 404):
        return status == 200
    raise refusal(at, f"asked for {digest}", _words(body), status=status)


def send_blob(at: Address, digest: str, path: Path, *, progress: ProgressCallback) -> None:
    """Send a file in blocks, its length first. The server discards a file that does not arrive complete.

    Args:
        at: Address of the server.
        digest: Digest that the server checks, `sha256:` and hex.
        path: The file.
        progress: Called after every block.

    Raises:
        VerificationError: The digest of what arrived is another.
        NetworkError: The connection was lost.
    """
    with path.open("rb") as file, _connected(at) as connection:
        size = os.fstat(file.fileno()).st_size
        connection.putrequest("POST", at.path + f"/api/blobs/{digest}", skip_accept_encoding=True)
        for name, value in _headers("application/octet-stream", size).items():
            connection.putheader(name, value)
        _patient(connection, _SEND)
        done = 0
        try:
            connection.endheaders()
            while block := file.read(min(_BLOCK, size - done)):
                connection.send(block)
                done += len(block)
                progress(Progress("sending", done, size, "bytes", item=path.name))
            if done < size:
                raise InputError("was cut short while it was read", "leave the file alone and run it again", path=path)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the server may have answered early
        response = answer(connection, _allowance(at, _ANSWER_BYTES, _WORK))
        body = response.read(_ANSWER_BYTES)
    if response.status not in (200, 201):
        raise refusal(at, f"sent {path.name}", _words(body), status=response.status)


def create(at: Address, request: Mapping[str, Any], say: Callable[[str], None]) -> None:
    """Create a model from files on the server.

    Args:
        at: Address of the server.
        request: Fields of /api/create.
        say: Called with every status message of the server.

    Raises:
        InputError: The server refuses the model, at once or midway.
        NetworkError: The connection was lost before the end.
    """
    name = request["model"]
    body = json.dumps({**request, "stream": True}).encode()
    with _connected(at) as connection:
        connection.request("POST", at.path + "/api/create", body, _headers("application/json", len(body)))
        allowance = _allowance(at, _WORK_BYTES, _WORK, _ALL_WORK)
        response = answer(connection, allowance)
        if response.status != 200:
            raise refusal(at, f"asked to create {name}", _words(response.read(_ANSWER_BYTES)), status=response.status)
        while line := response.readline(_LINE_BYTES + 1):
            if len(line) > _LINE_BYTES:
                raise NetworkError(f"{at} sends a line without an end", f"check {_VARIABLE}")
            allowance.prolong(_WORK)
            message = _message(line)
            if "error" in message:
                raise refusal(at, f"asked to create {name}", str(message["error"])[:_WORDS])
            status = str(message.get("status", ""))[:_WORDS]
            if status == "success":
                return
            say(status)
    raise NetworkError(f"{at} closed the connection before {name} was created", _RETRY)


def refusal(at: Address, what: str, words: str, *, status: int | None = None) -> GemmaqError:
    """The error for a request that the server refuses, with its own words and our exit code."""
    message = f"Ollama at {at}, {what}, answered: {words or 'nothing'}" + (f" ({status})" if status else "")
    if "no space left" in words:
        return OutputError(message, "free space where Ollama keeps its models")
    if "digest mismatch" in words:
        return VerificationError(message, "the file changed while it was sent, or on the way; run it again")
    if status in (401, 403):
        return AuthError(message, f"check {_VARIABLE}")
    if status in (404, 405):
        return NetworkError(message, f"check {_VARIABLE}, and update Ollama")
    return InputError(message)


def _ask(at: Address, method: str, path: str, *, value: object = None) -> tuple[int, bytes]:
    """Send a small request; status and body of the answer."""
    body = None if value is None else json.dumps(value).encode()
    with _connected(at) as connection:
        headers = _headers("application/json", len(body)) if body is not None else _headers()
        connection.request(method, at.path + path, body, headers)
        response = answer(connection, _allowance(at, _ANSWER_BYTES, _ANSWER))
        return response.status, response.read(_ANSWER_BYTES)


def _allowance(at: Address, most: int, seconds: float, longest: float = math.inf) -> Allowance:
    """What an answer of the server may take, from now on."""
    return Allowance(str(at), most, seconds, longest, hint=f"check {_VARIABLE}")


def _headers(kind: str | None = None, length: int = 0) -> dict[str, str]:
    always = {
        "User-Agent": f"gemmaq/{__version__}",
        "Accept": "application/json, application/x-ndjson",
        "Accept-Encoding": "identity",
    }
    return always | ({"Content-Type": kind, "Content-Length": str(length)} if kind else {})


@contextmanager
def _connected(at: Address) -> Iterator[http.client.HTTPConnection]:
    """Open a connection, closed at the end.

    Raises:
        NetworkError: It cannot be opened, or is lost.
    """
    kind = http.client.HTTPSConnection if at.scheme == "https" else http.client.HTTPConnection
    connection = kind(at.host, at.port, timeout=_CONNECT)
    try:
        try:
            connection.connect()
        except (OSError, UnicodeError, http.client.HTTPException) as error:
            raise _absent(at, error) from error
        yield connection
    except TimeoutError as error:
        raise NetworkError(
            f"{at} has not answered for a long time", "look at what Ollama is doing, and run it again"
        ) from error
    except (ConnectionError, ssl.SSLError, http.client.HTTPException) as error:
        what = str(error) or type(error).__name__
        raise NetworkError(f"the connection to {at} was lost: {what}", _RETRY) from error
    finally:
        connection.close()


def _absent(at: Address, error: Exception) -> NetworkError:
    is_unknown = isinstance(error, (socket.gaierror, UnicodeError))
    reason = "unknown host name" if is_unknown else getattr(error, "strerror", None) or str(error)
    if os.environ.get(_VARIABLE, "").strip():
        return NetworkError(f"no Ollama at {at}, as {_VARIABLE} says: {reason}", "start it there with `ollama serve`")
    return NetworkError(f"no Ollama at {at}: {reason}", f"start it with `ollama serve`, or set {_VARIABLE} to its host")


def _patient(connection: http.client.HTTPConnection, seconds: float) -> None:
    if connection.sock is not None:
        connection.sock.settimeout(seconds)


def _message(line: bytes) -> dict[str, Any]:
    """The JSON object in a line of a stream; an empty line is an empty object."""
    try:
        message = json.loads(line) if line.strip() else {}
    except (ValueError, RecursionError) as error:
        raise NetworkError(f"Ollama's answer is cut off: {line[:80]!r}", _RETRY) from error
    return message if isinstance(message, dict) else {}


def _words(body: bytes) -> str:
    """The error message in an answer."""
    try:
        return str(json.loads(body)["error"])[:_WORDS]
    except (ValueError, KeyError, TypeError, RecursionError):
        return body.decode("utf-8", "replace").strip()[:200]
