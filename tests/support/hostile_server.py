"""A server that answers every request with bytes of its choice, at its pace, until the client has had enough."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
_CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
_BLOCK = bytes(1 << 16)


def whole(body: bytes, head: bytes = OK) -> Iterator[bytes]:
    """An honest answer."""
    yield head + b"Content-Length: %d\r\n\r\n" % len(body) + body


def endless(block: bytes = _BLOCK) -> Iterator[bytes]:
    """A body that never ends, in chunks."""
    yield _CHUNKED
    while True:
        yield b"%x\r\n%s\r\n" % (len(block), block)


def endless_without_length() -> Iterator[bytes]:
    yield OK + b"\r\n"
    yield from itertools.repeat(_BLOCK)


def huge_length() -> Iterator[bytes]:
    yield OK + b"Content-Length: 99999999999999\r\n\r\n"
    yield from itertools.repeat(_BLOCK)


def huge_chunk() -> Iterator[bytes]:
    yield _CHUNKED + b"ffffffffffff\r\n"
    yield from itertools.repeat(_BLOCK)


_PACKED = zlib.compressobj(1, zlib.DEFLATED, 31)
_BOMB = b"".join([*(_PACKED.compress(bytes(1 << 20)) for _ in range(32)), _PACKED.flush()])
"""32 MB of zeros."""


def gzip_bomb() -> Iterator[bytes]:
    yield from whole(_BOMB, OK + b"Content-Encoding: gzip\r\n")


def dripping_body() -> Iterator[bytes]:
    yield OK + b"Content-Length: 1000\r\n\r\n"
    yield from _drip()


def dripping_without_length() -> Iterator[bytes]:
    yield OK + b"\r\n"
    yield from _drip()


def dripping_chunk_size() -> Iterator[bytes]:
    yield _CHUNKED + b"1;"
    yield from _drip()


def dripping_head() -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nX-Slow: "
    yield from _drip()


def dripping_status() -> Iterator[bytes]:
    yield b"HTTP/1.1 200 "
    yield from _drip()


def endless_continue() -> Iterator[bytes]:
    while True:
        yield b"HTTP/1.1 100 Continue\r\n\r\n"
        time.sleep(0.001)


def endless_headers() -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\n"
    for number in itertools.count():
        yield b"X-Number-%d: %s\r\n" % (number, b"x" * 1000)


def silence() -> Iterator[bytes]:
    yield b""
    while True:
        time.sleep(0.05)
        yield b""


def deep() -> Iterator[bytes]:
    yield from whole(b"[" * 1_000_000)


def nonsense() -> Iterator[bytes]:
    yield b"\x16\x03\x01 nonsense\r\n\r\n" * 10


def _drip() -> Iterator[bytes]:
    while True:
        time.sleep(0.02)
        yield b"x"


ANSWERS: dict[str, Callable[[], Iterator[bytes]]] = {
    "endless": endless,
    "endless spaces": lambda: endless(b" " * 65_536),
    "endless without length": endless_without_length,
    "endless continue": endless_continue,
    "endless headers": endless_headers,
    "huge length": huge_length,
    "huge chunk": huge_chunk,
    "gzip bomb": gzip_bomb,
    "dripping body": dripping_body,
    "dripping without length": dripping_without_length,
    "dripping chunk size": dripping_chunk_size,
    "dripping head": dripping_head,
    "dripping status": dripping_status,
    "silence": silence,
    "deep": deep,
    "nonsense": nonsense,
}


class HostileServer:
    """The server; it answers between `with` and its end.

    Attributes:
        answer: Makes the bytes of the answer to a request line.
        keeps: Whether a connection takes further requests.
        sent: Bytes sent in all.
    """

    def __init__(self, answer: Callable[[str], Iterable[bytes]], *, keeps: bool = False) -> None:
        self.answer, self.keeps = answer, keeps
        self.sent = 0
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._closed = threading.Event()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._listening.getsockname()[1]}"

    def __enter__(self) -> HostileServer:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _serve(self) -> None:
        while not self._closed.is_set():
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError), connection.makefile("rb") as reading:
            while line := reading.readline().decode():
                size = 0
                while (header := reading.readline().strip()) != b"":
                    name, _, value = header.partition(b":")
                    size = int(value) if name.lower() == b"content-length" else size
                reading.read(size)
                for data in self.answer(line):
                    if self._closed.is_set():
                        return
                    connection.sendall(data)
                    self.sent += len(data)
                if not self.keeps:
                    return
