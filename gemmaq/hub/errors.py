"""Errors of huggingface_hub and httpx as gemmaq's own: what failed, what to do next, and the exit code."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from typing import Any

import httpx2
import huggingface_hub
from huggingface_hub import constants, errors

from gemmaq.errors import AuthError, GemmaqError, NetworkError, NotFoundError, OutputError
from gemmaq.hub import Ref


class MovedError(NetworkError):
    """Another commit came first, so that this one has another parent than it was made for."""


def endpoint() -> str:
    """Address of the Hub, without a slash at its end and without a password in it."""
    return re.sub(r"//[^/@]*@", "//", str(constants.ENDPOINT))


def has_token() -> bool:
    """Whether the user has a token that requests may use."""
    return bool(huggingface_hub.get_token()) and not constants.HF_HUB_DISABLE_IMPLICIT_TOKEN


def translate(error: Exception, ref: Ref, path: str | None = None) -> GemmaqError:
    """The error to show the user; an error that nobody expects is raised as it is.

    Args:
        error: Error of a request.
        ref: The repository.
        path: File in the repository that was asked for, None for the repository as a whole.
    """
    if isinstance(error, GemmaqError):
        return error
    for kind, convert in _CONVERSIONS.items():  # in order: subclasses first
        if isinstance(error, kind):
            return convert(error, ref, path)
    raise error


def first_cause(error: BaseException) -> BaseException:
    """The error at the root of a chain of errors."""
    while True:
        cause = error.__cause__ or error.__context__
        if cause is None:
            return error
        error = cause


def not_a_hub(error: Any, ref: Ref, path: str | None) -> GemmaqError:
    """The error for an answer that no Hub gives: a proxy's page, or something else."""
    return NetworkError(f"the answer of {_host()} for {ref} is not a Hub's answer", "check HF_ENDPOINT and the proxy")


def _host() -> str:
    return endpoint().partition("//")[2].partition("/")[0]


def _page(ref: Ref) -> str:
    return f"{endpoint()}/{ref.repo}"


def _gated(error: Any, ref: Ref, path: str | None) -> GemmaqError:
    if has_token() and error.response is not None and error.response.status_code == 403:
        return AuthError("is gated and your account has no access", f"accept its terms at {_page(ref)}", path=ref.repo)
    return AuthError(
        "is gated", f"accept its terms at {_page(ref)}, then `hf auth login` or set HF_TOKEN", path=ref.repo
    )


def _no_repository(error: Any, ref: Ref, path: str | None) -> GemmaqError:
    if has_token():
        return NotFoundError(f"does not exist on {_host()}, or your token has no access to it", path=ref.repo)
    return NotFoundError(
        f"does not exist on {_host()}, or is private", "check its name; for a private one set HF_TOKEN", path=ref.repo
    )


def _no_revision(error: Any, ref: Ref, path: str | None) -> GemmaqError:
    return NotFoundError(f"has no revision {ref.revision or 'main'}", f"see {_page(ref)}/tree/main", path=ref.repo)


def _no_file(error: Any, ref: Ref, path: str | None) -> GemmaqError:
    return NotFoundError(f"has no file {path or ref.part}", path=ref)


def _refused(error: Any, ref: Ref, path: str | None) -> GemmaqError:
    """The error for a status that the client has no class for."""
    response = error.response
    status = response.status_code if response is not None else 0
    if status in (401, 403):
        if has_token():
            return AuthError(
                f"{_host()} refuses the token ({status})", "create a new one in its settings, then set HF_TOKEN"
            )
        return AuthError(f"{ref.repo} needs a token ({status})", "`hf auth login`, or set HF_TOKEN")
    if status == 404:
        return NetworkError(f"{path or ref} not found on {_host()} (404)", "check the name, HF_ENDPOINT and the proxy")
    if status == 412:
        return MovedError(f"{ref} has changed in the meantime", "try again")
    what = "asks to slow down (429)" if status == 429 else f"answers {status}"
    return NetworkError(f"{_host()} {what} for {path or ref}", "try again later")


def _offline(error: Any, ref: Ref, path: str | None) -> GemmaqError:
    return NetworkError(
        "is not cached, and gemmaq is offline", "unset HF_HUB_OFFLINE, and leave out --offline", path=ref
    )


def _lost(error: Any, ref: Ref, path: str | None) -> GemmaqError:
    cause = first_cause(error)
    if isinstance(error, httpx2.UnsupportedProtocol):
        return _bad_endpoint(error, ref, path)
    if isinstance(cause, socket.gaierror):
        what = f"cannot reach {_host()}: unknown host name"
    elif isinstance(error, httpx2.TimeoutException):
        what = f"{_host()} does not answer"
    elif isinstance(error, httpx2.ConnectError):
        what = f"cannot reach {_host()}: {cause}"
    elif isinstance(error, httpx2.TooManyRedirects):
        what = f"{_host()} redirects in circles"
    else:
        what = f"the connection to {_host()} was lost"
    return NetworkError(f"{what} ({path or ref})", "check the network, the proxy and HF_ENDPOINT")


def _bad_endpoint(error: Any, ref: Ref, path: str | None) -> GemmaqError:
    return NetworkError(f"{endpoint()} is not a valid address", "check HF_ENDPOINT")


def _bad_name(error: Any, ref: Ref, path: str | None) -> GemmaqError:
    return NotFoundError("is not a valid repository name", "write org/name", path=ref.repo)


def _bad_home(error: Any, ref: Ref, path: str | None) -> GemmaqError:
    return OutputError(
        f"{error.filename or constants.HF_HOME} cannot be used: {error.strerror or error}",
        "HF_HOME says where tokens and models are",
    )


_CONVERSIONS: dict[type[Exception], Callable[[Any, Ref, str | None], GemmaqError]] = {
    errors.GatedRepoError: _gated,
    errors.RepositoryNotFoundError: _no_repository,
    errors.RevisionNotFoundError: _no_revision,
    errors.EntryNotFoundError: _no_file,
    errors.HFValidationError: _bad_name,
    errors.OfflineModeIsEnabled: _offline,
    errors.HfHubHTTPError: _refused,
    httpx2.RequestError: _lost,
    httpx2.InvalidURL: _bad_endpoint,
    ValueError: not_a_hub,
    OSError: _bad_home,
}
