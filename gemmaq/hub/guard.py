"""The guard of every exchange with the Hub: answers end, by their bytes and by their time, and arrive as they are.

huggingface_hub asks `client` for the client of all its requests, so that the guard holds for its own calls, too. It
uses public interfaces of httpx2 alone: event hooks, streams, and the extensions `timeout` and `network_stream`.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, wait
from contextvars import copy_context
from functools import cache
from typing import Any

import httpx2
from huggingface_hub import constants, errors, set_client_factory

from gemmaq.hub.allowance import Allowance

_KEY = "gemmaq.bytes"
"""Extension of a request for a file: the bytes that its answer may have."""
_HINT = "check HF_ENDPOINT and the proxy"
TIMEOUT = httpx2.Timeout(connect=15, read=30, write=60, pool=60)
"""Seconds without any byte."""
HEAD_SECONDS = 60.0
"""From the last byte of a request to the end of the head of its answer."""
WORK_SECONDS = 300.0
"""The same for requests that change something: the Hub works on a commit of many files."""
_ANSWER_BYTES, _ANSWER_SECONDS = 1 << 23, 120.0
"""Of an answer that is no file: JSON takes up to twenty times its bytes in memory, 300 bytes list a file."""
STEP_BYTES, STEP_SECONDS = 1 << 19, 60.0
"""So many bytes of a file give it so many seconds more. A connection below 9 kB/s is opened anew, and continues."""

_LARGE, _READ = 1 << 22, 1 << 20
"""Bytes of a body from which reading past httpx2 pays off, and bytes read at a time there."""


def for_file(most: int) -> dict[str, Any]:
    """The extensions of a request whose answer is a file of at most so many bytes."""
    return {_KEY: most}


@cache
def install() -> None:
    """Give huggingface_hub the guarded client; later calls do nothing."""
    set_client_factory(client)


def client() -> httpx2.Client:
    """A client whose exchanges are guarded."""
    hooks: dict[str, list[Any]] = {"request": [_ask], "response": [_receive]}
    return _Client(event_hooks=hooks, follow_redirects=True, timeout=TIMEOUT)


def _ask(request: httpx2.Request) -> None:
    if constants.is_offline_mode():
        raise errors.OfflineModeIsEnabled(f"cannot reach {request.url}: offline mode is enabled")


def _receive(response: httpx2.Response) -> None:
    """Check the head of an answer and guard its body.

    Raises:
        RefusedError: It is encoded, although nobody asked for that, or longer than allowed.
    """
    request = response.request
    most: int | None = request.extensions.get(_KEY) if response.status_code in (200, 206) else None
    is_file = most is not None
    allowance = Allowance(
        request.url.host,
        _ANSWER_BYTES if most is None else most,
        STEP_SECONDS if is_file else _ANSWER_SECONDS,
        hint=_HINT,
    )
    allowance.check_encoding(response.headers.get("Content-Encoding"))
    if not is_file and request.method != "HEAD":
        allowance.expect(_length(response))
    response.stream = _Body(response, allowance, is_file=is_file)


def _length(response: httpx2.Response) -> int:
    """Bytes of a body by the head of its answer; 0 if it does not say."""
    length = response.headers.get("Content-Length", "")
    is_said = length.isdecimal() and len(length) < 20 and "Transfer-Encoding" not in response.headers
    return int(length) if is_said else 0


class _Body(httpx2.SyncByteStream):
    """The body of an answer; a thread cuts its connection when its time is over, whatever the reader waits for."""

    def __init__(self, response: httpx2.Response, allowance: Allowance, *, is_file: bool) -> None:
        """Guard the body of an answer.

        Args:
            response: The answer.
            allowance: What it may take.
            is_file: Whether it is a file, whose time its bytes prolong, and which may be large.
        """
        assert isinstance(response.stream, httpx2.SyncByteStream)
        self._stream, self._allowance, self._is_file = response.stream, allowance, is_file
        self._network = response.extensions.get("network_stream")
        self._length = _length(response) if is_file and response.http_version == "HTTP/1.1" else 0
        self._is_late = False
        self._closed = threading.Event()

    def __iter__(self) -> Iterator[bytes]:
        threading.Thread(target=self._watch, daemon=True).start()
        stepped = 0
        try:
            for piece in self._pieces():
                self._allowance.take(len(piece))
                stepped += len(piece)
                if self._is_file and stepped >= STEP_BYTES:
                    stepped = 0
                    self._allowance.prolong(STEP_SECONDS)
                if self._is_late or self._allowance.left() <= 0:
                    raise self._allowance.too_slow()
                yield piece
        except httpx2.TransportError as error:
            if self._is_late:
                raise self._allowance.too_slow() from error
            raise
        finally:
            self._closed.set()
        if self._is_late:
            raise self._allowance.too_slow()  # a body without a length ends where its connection does

    def close(self) -> None:
        self._closed.set()
        self._stream.close()

    def _pieces(self) -> Iterator[bytes]:
        """The body; after its first piece, a large one is read from the connection itself.

        httpx2 and h11 copy bytes twice, 64 kB at a time, which takes longer than hashing them.
        """
        parsed = iter(self._stream)
        first = next(parsed, b"")
        yield first
        left = self._length - len(first)
        if left < _LARGE or self._network is None:
            yield from parsed
            return
        while left > 0:
            try:
                piece: bytes = self._network.read(min(left, _READ), timeout=TIMEOUT.read)
            except Exception as error:  # of the library below httpx2, which is no dependency of gemmaq
                is_timeout = isinstance(error.__cause__, TimeoutError)
                raise (httpx2.ReadTimeout if is_timeout else httpx2.ReadError)(str(error)) from error
            if not piece:
                raise httpx2.RemoteProtocolError("the peer closed the connection")
            left -= len(piece)
            yield piece

    def _watch(self) -> None:
        while not self._closed.wait(max(0.0, self._allowance.left())):
            if self._allowance.left() <= 0:
                self._is_late = True
                _cut(self._network)
                return


def _cut(network: Any) -> None:
    """End a connection, so that whoever reads from it hears of it."""
    connection = network.get_extra_info("socket") if network is not None else None
    if connection is not None:
        with contextlib.suppress(OSError, ValueError):
            connection.shutdown(socket.SHUT_RDWR)


class _Sent(httpx2.SyncByteStream):
    """The body of a request.

    Attributes:
        last: Time of its last byte.
    """

    def __init__(self, stream: httpx2.SyncByteStream) -> None:
        self._stream = stream
        self.last = time.monotonic()

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._stream:
            yield piece
            self.last = time.monotonic()

    def close(self) -> None:
        self._stream.close()


class _Client(httpx2.Client):
    """Waits for the head of an answer for a limited time, however many bytes of it come."""

    def send(self, request: httpx2.Request, *, stream: bool = False, **options: Any) -> httpx2.Response:
        is_reading = request.method in ("GET", "HEAD")
        seconds = HEAD_SECONDS if is_reading else WORK_SECONDS
        request.headers["Accept-Encoding"] = "identity"
        bounds = TIMEOUT.as_dict() if is_reading else {**TIMEOUT.as_dict(), "read": WORK_SECONDS}
        request.extensions = {**request.extensions, "timeout": bounds}
        assert isinstance(request.stream, httpx2.SyncByteStream)
        request.stream = sent = _Sent(request.stream)
        answer: Future[httpx2.Response] = Future()
        send = super().send

        def work() -> None:
            try:
                answer.set_result(send(request, stream=True, **options))
            except BaseException as error:
                answer.set_exception(error)

        threading.Thread(target=copy_context().run, args=(work,), daemon=True).start()
        try:
            while not answer.done():
                left = sent.last + seconds - time.monotonic()
                if left <= 0:
                    raise Allowance(request.url.host, 0, 0, hint=_HINT).too_slow()
                wait([answer], left)
        except BaseException:
            answer.add_done_callback(_close)
            raise
        response = answer.result()
        if not stream:
            try:
                response.read()
            except BaseException:
                response.close()
                raise
        return response


def _close(answer: Future[httpx2.Response]) -> None:
    """Close an answer that nobody waits for any more."""
    if answer.exception() is None:
        answer.result().close()
