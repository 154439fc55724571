"""What an answer over the network may take: so many bytes, so much time, and no encoding.

`guard` holds the Hub's answers to it, and `runtimes/guarded.py` those of Ollama: each reads through another client.
"""

from __future__ import annotations

import math
import time

from gemmaq.errors import NetworkError


class RefusedError(NetworkError):
    """An answer is of a kind that no honest server gives: another attempt is pointless."""


class TooSlowError(NetworkError):
    """An answer took too long, although bytes of it came."""


class Allowance:
    """What one answer may take."""

    def __init__(self, server: str, most: int, seconds: float, longest: float = math.inf, *, hint: str) -> None:
        """Allow bytes and time from now on.

        Args:
            server: Name of the server, for errors.
            most: Bytes.
            seconds: Until the end of the answer.
            longest: Seconds beyond which `prolong` does not go.
            hint: What the user can check if the answer is refused.
        """
        now = time.monotonic()
        self._server, self._hint = server, hint
        self._most, self._taken = most, 0
        self._end, self._last = now + seconds, now + longest

    def take(self, count: int) -> None:
        """Count received bytes.

        Raises:
            RefusedError: They are too many.
        """
        self.expect(count)
        self._taken += count

    def expect(self, count: int) -> None:
        """Check whether so many more bytes are allowed.

        Raises:
            RefusedError: They are not.
        """
        if self._taken + count > self._most:
            raise RefusedError(
                f"{self._server} sends more than the {self._most:,} bytes that such an answer may have", self._hint
            )

    def prolong(self, seconds: float) -> None:
        """Allow so many seconds from now on, as far as the longest time goes."""
        self._end = min(time.monotonic() + seconds, self._last)

    def left(self) -> float:
        """Seconds until the end, 0 or less after it."""
        return self._end - time.monotonic()

    def too_slow(self) -> TooSlowError:
        """The error for an answer whose time is over."""
        return TooSlowError(f"{self._server} answers too slowly", "check the network, and try again later")

    def check_encoding(self, name: str | None) -> None:
        """Check the header Content-Encoding of the answer to a request for `identity`.

        Raises:
            RefusedError: The body is encoded, although nobody asked for that.
        """
        encoding = (name or "").strip().lower()
        if encoding not in ("", "identity"):
            raise RefusedError(
                f"{self._server} sends an answer in the encoding {encoding!r:.40}, which nobody asked for", self._hint
            )
