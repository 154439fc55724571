"""Answers of http.client that keep to an allowance: a limit of bytes, a deadline, and no encoding.

http.client has a timeout for each read alone, so that a byte now and then, or a line without an end, would hold it for
ever. Here every byte of an answer, of its head too, passes one reader that counts and looks at the clock.
"""

from __future__ import annotations

import http.client
import io
import socket
from typing import Any

from gemmaq.hub.allowance import Allowance


class _Incoming(io.RawIOBase):
    """The bytes of a socket, as far as they are allowed."""

    def __init__(self, connection: socket.socket, allowance: Allowance) -> None:
        self._connection, self._allowance = connection, allowance
        self._raw: Any = connection.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self._allowance.left()
        if left <= 0:
            raise self._allowance.too_slow()
        self._connection.settimeout(left)
        count = int(self._raw.readinto(buffer) or 0)
        self._allowance.take(count)
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Source:
    """A socket as HTTPResponse wants it: something that makes a file."""

    def __init__(self, connection: socket.socket, allowance: Allowance) -> None:
        self._connection, self._allowance = connection, allowance

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Incoming(self._connection, self._allowance))


def answer(connection: http.client.HTTPConnection, allowance: Allowance) -> http.client.HTTPResponse:
    """The head of the answer to the request that was sent, and its body to be read.

    Raises:
        RefusedError: It is encoded, although nobody asked for that, or has more bytes than allowed; also when reading.
        TooSlowError, TimeoutError: It takes longer than allowed; also when reading.
    """

    def respond(opened: socket.socket, *arguments: Any, **options: Any) -> http.client.HTTPResponse:
        source: Any = _Source(opened, allowance)
        return http.client.HTTPResponse(source, *arguments, **options)

    connection.response_class = respond  # type: ignore[assignment]
    response = connection.getresponse()
    allowance.check_encoding(response.getheader("Content-Encoding"))
    return response
