"""HTTP of the fake Hub: one connection, its requests, its answers, spoilt where a rule says so."""

from __future__ import annotations

import fcntl
import json
import math
import os
import re
import socket
import struct
import sys
import termios
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

from hub_faults import Body, Fault, Piece, cut, invert, piece, size_of

if TYPE_CHECKING:
    from fake_hub import FakeHub

SEND_BYTES = 16 << 20
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


class Closed(ConnectionError):
    """The connection was closed on purpose."""


@dataclass
class Request:
    """What was asked.

    Attributes:
        host: "hub" or "cdn".
        parts: the path's segments, unquoted one by one.
        faults: the rules that spoil the answer, by kind.
    """

    hub: FakeHub
    host: str
    method: str
    target: str
    headers: Message
    faults: dict[str, Fault]
    body: Iterator[bytes]

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def parts(self) -> list[str]:
        return [unquote(part) for part in self.path.strip("/").split("/")]

    @property
    def query(self) -> dict[str, str]:
        return {key: values[-1] for key, values in parse_qs(urlsplit(self.target).query).items()}

    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(b"".join(self.body) or b"{}")


@dataclass
class Reply:
    """What is answered; `file` is the `repo/file` whose bytes it carries."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: Body = field(default_factory=list)
    file: str | None = None


@dataclass
class Record:
    """A request as it was answered: `sent` are bytes of the body; status 0 where nothing was answered."""

    host: str
    method: str
    path: str
    range: str | None
    token: str | None
    status: int = 0
    sent: int = 0
    received: int = 0
    file: str | None = None
    faults: tuple[str, ...] = ()
    started: float = 0.0
    finished: float = 0.0


def answer(value: Any, status: int = 200, **headers: str) -> Reply:
    """JSON."""
    data = json.dumps(value).encode()
    return Reply(
        status, {"Content-Type": "application/json; charset=utf-8", **headers}, list(piece(data, 0, len(data)))
    )


def failure(status: int, code: str | None, message: str) -> Reply:
    """An error as the Hub tells it, in headers and in the body."""
    headers = {"X-Error-Code": code} if code else {}
    if status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="Authentication required", charset="UTF-8"'
    return answer({"error": message}, status, **headers, **{"X-Error-Message": message})


def content(request: Request, source: bytes | Path, size: int, etag: str, headers: Mapping[str, str]) -> Reply:
    """A file, or the range of it that was asked for."""
    if "changed" in request.faults:
        etag = f"{'c0ffee':0<{len(etag)}}"
    told = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes", "ETag": f'"{etag}"', **headers}
    asked = request.headers.get("Range")
    condition = request.headers.get("If-Range")
    if request.headers.get("If-Match", told["ETag"]) != told["ETag"]:
        return Reply(412, {"ETag": told["ETag"]})
    found = _RANGE.fullmatch((asked or "").replace(" ", ""))
    if not found or found.groups() == ("", "") or "no_range" in request.faults or condition not in (None, told["ETag"]):
        return Reply(200, told, piece(source, 0, size))
    first, last = found.groups()
    start = int(first) if first else max(size - int(last), 0)
    stop = min(int(last) + 1, size) if first and last else size
    if start >= size or stop <= start:
        return Reply(416, {"Content-Range": f"bytes */{size}"})
    told["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    return Reply(206, told, piece(source, start, stop))


class Server(ThreadingHTTPServer):
    """One of the two hosts; knows its connections, to close them at the end."""

    request_queue_size = 256
    daemon_threads = True

    def __init__(self, hub: FakeHub, host: str, port: int) -> None:
        self.hub, self.host_name = hub, host
        self.connections: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), Connection)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError | ValueError) and not self.hub.closing.is_set():
            super().handle_error(request, client_address)

    def close_connections(self) -> None:
        for connection in list(self.connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                self.connections.discard(connection)


class Connection(BaseHTTPRequestHandler):
    """A connection that is kept alive."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server
    record: Record

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: `hub.requests` is the log."""

    def _handle(self) -> None:
        hub, host = self.server.hub, self.server.host_name
        faults = hub.faults.of(self.command, host, unquote(urlsplit(self.path).path))
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        self.record = Record(host, self.command, self.path, self.headers.get("Range"), token, faults=tuple(faults))
        self.record.started = time.monotonic()
        hub.started(self.record)
        try:
            request = Request(hub, host, self.command, self.path, self.headers, faults, self._receive(faults))
            if hub.latency:
                time.sleep(hub.latency)
            reply = self._spoilt(request) or hub.route(request)
            for _ in request.body:
                pass
            if "lost" in faults:
                self._end("lost")
            self._send(request, reply)
        finally:
            hub.finished(self.record)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _handle

    def _receive(self, faults: Mapping[str, Fault]) -> Iterator[bytes]:
        """The body of the request, in pieces; a rule may end it early."""
        breaks = faults.get("cut") or faults.get("reset") or faults.get("stall")
        step = min(1 << 20, max(1, breaks.after_bytes)) if breaks else 1 << 20
        for data in self._chunks(step) if self.command in ("PUT", "POST", "DELETE") else ():
            self.record.received += len(data)
            if slow := faults.get("slow"):
                time.sleep(len(data) / slow.rate)
            if breaks and self.record.received >= breaks.after_bytes:
                self._end(breaks.kind)
            yield data

    def _chunks(self, step: int) -> Iterator[bytes]:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return
        left = int(self.headers.get("Content-Length") or 0)
        while left > 0:
            data = self.rfile.read(min(left, step))
            if not data:
                raise Closed
            left -= len(data)
            yield data

    def _spoilt(self, request: Request) -> Reply | None:
        """The answer of rules that need no route."""
        if fault := request.faults.get("status"):
            reply = failure(fault.status, None, f"Server error {fault.status}, on purpose")
            if fault.retry_after is not None:
                reply.headers["Retry-After"] = f"{fault.retry_after:g}"
                reply.headers["RateLimit"] = f'"api";r=0;t={math.ceil(fault.retry_after)}'
            return reply
        if "redirect" in request.faults:
            return Reply(302, {"Location": request.target})
        stall = request.faults.get("stall")
        if stall and stall.after_bytes < 0:
            self._end("stall")
        return None

    def _send(self, request: Request, reply: Reply) -> None:
        """The answer, with what the rules make of its body."""
        faults, body = request.faults, reply.body
        self.record.status, self.record.file = reply.status, reply.file
        if fault := faults.get("flip"):
            body = invert(body, fault.offset, fault.offset + 1)
        if fault := faults.get("changed"):
            body = invert(body, fault.offset, sys.maxsize)
        if fault := faults.get("truncate"):
            body = cut(body, max(size_of(body) - fault.by, 0))
        told = size_of(body)
        if fault := faults.get("declare"):
            told += fault.by
            self.close_connection = True
        breaks = faults.get("cut") or faults.get("reset") or faults.get("stall")
        bodiless = self.command == "HEAD" or reply.status in (204, 304)
        ends = breaks and not bodiless and breaks.after_bytes < max(told, 1) and not self.record.received
        if breaks and ends:
            body = cut(body, breaks.after_bytes)
        head = self._head(reply, told)
        if bodiless:
            self.connection.sendall(head)
        else:
            self._send_body(head, body, faults)
        if breaks and ends:
            self._end(breaks.kind)

    def _head(self, reply: Reply, told: int) -> bytes:
        headers = {"X-Request-Id": f"Root=1-{next(self.server.hub.numbers):08x}", **reply.headers}
        if reply.status != 304 and "Transfer-Encoding" not in headers:
            headers["Content-Length"] = str(told)
        if self.close_connection:
            headers["Connection"] = "close"
        phrase = self.responses.get(reply.status, ("",))[0]
        lines = [f"HTTP/1.1 {reply.status} {phrase}", *(f"{key}: {value}" for key, value in headers.items()), "", ""]
        return "\r\n".join(lines).encode("latin-1", "replace")

    def _send_body(self, head: bytes, body: Body, faults: Mapping[str, Fault]) -> None:
        """Head and body; files go from the page cache to the socket, without passing through Python."""
        slow = faults.get("slow")
        step = max(slow.rate // 20, 1) if slow else SEND_BYTES
        if len(body) == 1 and isinstance(body[0].source, bytes) and not slow and not body[0].inverted:
            part = body[0]
            self.connection.sendall(head + part.source[part.start : part.start + part.size])
            self._count(part.size)
            return
        self.connection.sendall(head, getattr(socket, "MSG_MORE", 0) if body else 0)
        for part in body:
            if isinstance(part.source, Path):
                with open(part.source, "rb") as file:
                    self._send_piece(part, file, step, slow)
            else:
                self._send_piece(part, None, step, slow)

    def _send_piece(self, part: Piece, file: IO[bytes] | None, step: int, slow: Fault | None) -> None:
        at, stop = part.start, part.start + part.size
        while at < stop:
            size = min(step, stop - at, 1 << 20 if part.inverted else step)
            if file and not part.inverted:
                sent = os.sendfile(self.connection.fileno(), file.fileno(), at, size)
            else:
                data = os.pread(file.fileno(), size, at) if file else part.source[at : at + size]
                data = bytes(255 - byte for byte in data) if part.inverted else data
                self.connection.sendall(data)
                sent = len(data)
            if sent == 0:
                raise Closed("the file is shorter than it was")
            at += sent
            self._count(sent)
            if slow:
                time.sleep(sent / slow.rate)

    def _count(self, size: int) -> None:
        self.record.sent += size

    def _end(self, kind: str) -> None:
        """Leave the connection as the rule says: silent, closed, or reset once all has arrived."""
        hub = self.server.hub
        if kind == "stall":
            hub.finished(self.record)
            hub.closing.wait()
        elif kind == "reset":
            self._drain()
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.rfile.close()
            self.connection.close()
        self.close_connection = True
        raise Closed(kind)

    def _drain(self) -> None:
        """Wait until the peer has received what was sent: a reset throws away the rest."""
        for _ in range(1000):
            waiting = fcntl.ioctl(self.connection.fileno(), termios.TIOCOUTQ, b"\0" * 4)
            if not struct.unpack("i", waiting)[0]:
                return
            time.sleep(0.001)
