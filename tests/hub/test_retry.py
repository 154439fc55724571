"""Another attempt: after which errors, and how long before it."""

from __future__ import annotations

import socket

import httpx2
import huggingface_hub
import pytest

from gemmaq.errors import NetworkError
from gemmaq.hub import Ref, retry


def test_patience_in_seconds() -> None:
    """What a user waits at most for a server that gives nothing but errors."""
    error = huggingface_hub.errors.HfHubHTTPError.__new__(huggingface_hub.errors.HfHubHTTPError)
    error.response = httpx2.Response(503)
    waits = [retry.wait_before_retry(error, failures) for failures in range(retry.ATTEMPTS)]
    assert waits[-1] is None and waits[0] == retry.FIRST_WAIT
    assert 10 < sum(wait for wait in waits if wait) < 120
    error.response = httpx2.Response(429, headers={"Retry-After": "86400"})
    assert retry.wait_before_retry(error, 0) == 60


def test_only_what_may_pass_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_WAIT", 0.001)
    request = httpx2.Request("GET", "http://hub.example")
    attempts: list[Exception] = [httpx2.ReadError("lost", request=request), httpx2.ReadTimeout("", request=request)]

    def attempt() -> str:
        if attempts:
            raise attempts.pop()
        return "done"

    assert retry.retried(Ref("org/name"), attempt) == "done"
    unknown = httpx2.ConnectError("unknown", request=request)
    unknown.__cause__ = socket.gaierror("Name or service not known")
    attempts += [ValueError("never reached"), unknown]
    with pytest.raises(NetworkError, match="unknown host name") as failed:
        retry.retried(Ref("org/name"), attempt)
    assert len(attempts) == 1 and "continues" not in str(failed.value.hint)
