"""Another attempt after errors that may pass: lost connections, and statuses of a busy server."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import TypeVar

import httpx2
from huggingface_hub import errors

from gemmaq.hub import Ref
from gemmaq.hub.errors import first_cause, translate

Result = TypeVar("Result")

ATTEMPTS = 6
FIRST_WAIT = 0.5
"""Seconds before the second attempt; each wait is twice the one before."""
_LONGEST_WAIT = 60.0
_BUSY = frozenset((408, 429, 500, 502, 503, 504))
"""Statuses that may pass."""


def retried(ref: Ref, attempt: Callable[[], Result], path: str | None = None) -> Result:
    """The result of the first attempt that succeeds; waits between attempts as long as the server says.

    Raises:
        GemmaqError: The last attempt failed, or one failed for good; see `errors.translate`.
    """
    for failures in range(ATTEMPTS):
        try:
            return attempt()
        except Exception as error:
            wait = wait_before_retry(error, failures)
            if wait is None:
                raise translate(error, ref, path) from error
            time.sleep(wait)
    raise AssertionError("no wait follows the last attempt")


def wait_before_retry(error: Exception, failures: int) -> float | None:
    """Seconds to wait before another attempt, None if there is no point in one.

    Args:
        error: Error of the last attempt.
        failures: Number of attempts that failed before it.
    """
    if failures >= ATTEMPTS - 1:
        return None
    wait = FIRST_WAIT * 2**failures
    if isinstance(error, errors.HfHubHTTPError) and error.response is not None:
        if error.response.status_code not in _BUSY:
            return None
        retry_after = error.response.headers.get("Retry-After", "")
        return min(float(retry_after) if retry_after.isdigit() else wait, _LONGEST_WAIT)
    if isinstance(error, httpx2.ConnectError) and isinstance(first_cause(error), socket.gaierror):
        return None  # a host name that is unknown now will be unknown in a second
    if isinstance(error, httpx2.TransportError):
        return None if isinstance(error, (httpx2.ProxyError, httpx2.UnsupportedProtocol)) else wait
    return None
