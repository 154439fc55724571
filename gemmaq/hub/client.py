"""The only importer of huggingface_hub: requests, and its errors in our own words."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpcore2
import httpx2
import huggingface_hub
from huggingface_hub import constants, errors, hf_hub_url
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    WeakFileLock,
    build_hf_headers,
    disable_progress_bars,
    get_session,
    hf_raise_for_status,
)

from gemmaq import __version__
from gemmaq.errors import AuthError, GemmaqError, NetworkError, NotFoundError, OutputError
from gemmaq.hub import Listing, Ref, RemoteFile, check_name

Result = TypeVar("Result")

ATTEMPTS = 6
FIRST_WAIT = 0.5
_LONGEST_WAIT = 60.0
_AGAIN = frozenset((408, 429, 500, 502, 503, 504))
_LARGE = 1 << 22
_READ = 1 << 20
"""Bytes that are worth a way of their own, and how many are read at a time there."""
_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
"""Commits and digests, which become names of files."""
_TIMEOUT = httpx2.Timeout(connect=15, read=30, write=60, pool=60)


def is_offline() -> bool:
    """Whether the environment forbids the network."""
    return bool(constants.is_offline_mode())


def endpoint() -> str:
    """Where the Hub is, without a slash at the end, or a password that stands in it."""
    return re.sub(r"//[^/@]*@", "//", str(constants.ENDPOINT))


def cache_folder(repo: str) -> Path:
    """Where the Hub's tools keep a model."""
    return Path(constants.HF_HUB_CACHE) / ("models--" + repo.replace("/", "--"))


def lock(repo: str, etag: str) -> Any:
    """The lock that the Hub's tools take while they write a blob, a context manager; TimeoutError in half a second."""
    path = Path(constants.HF_HUB_CACHE) / ".locks" / cache_folder(repo).name / f"{etag}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    return WeakFileLock(path, timeout=0.5)


def listing(ref: Ref) -> Listing:
    """What a repository holds at a revision.

    Raises:
        GemmaqError: it cannot be had, see `translate`.
        InputError: a file has an unsafe name.
    """
    api = huggingface_hub.HfApi(library_name="gemmaq", library_version=__version__)
    try:
        info = patiently(ref, lambda: api.model_info(ref.repo, revision=ref.revision, files_metadata=True, timeout=30))
    except (AttributeError, KeyError, TypeError) as error:
        raise _no_hub(error, ref, None) from error
    files = []
    for sibling in info.siblings or ():
        check_name(sibling.rfilename, ref)
        sha256, oid = sibling.lfs.sha256 if sibling.lfs else None, sibling.blob_id or ""
        files.append(file := RemoteFile(sibling.rfilename, sibling.size or 0, sha256, oid))
        if not _DIGEST.fullmatch(file.etag):
            raise _no_hub(None, ref, None)
    if not _DIGEST.fullmatch(info.sha or ""):
        raise _no_hub(None, ref, None)
    return Listing(ref, str(info.sha), tuple(files))


@contextmanager
def content(listed: Listing, file: RemoteFile, start: int, end: int | None = None) -> Iterator[httpx2.Response]:
    """The bytes of a file from `start` to before `end`, as a response to be streamed.

    Raises:
        httpx2.HTTPError, HfHubHTTPError: to be told by `translate`, or worth another attempt.
    """
    url = hf_hub_url(listed.ref.repo, file.path, revision=listed.commit)
    headers = build_hf_headers(library_name="gemmaq", library_version=__version__)
    headers["Accept-Encoding"] = "identity"
    if start or end is not None:
        headers["Range"] = f"bytes={start}-{'' if end is None else end - 1}"
    with get_session().stream("GET", url, headers=headers, timeout=_TIMEOUT) as response:
        if response.status_code >= 400:
            response.read()
        hf_raise_for_status(response)
        yield response


def pieces(response: httpx2.Response) -> Iterator[bytes]:
    """The body of a response to be streamed, as it comes.

    What a large one has after its first piece is read from the connection itself: on the way through httpx and h11
    bytes are copied twice, 64 kB at a time, which takes longer than to hash them.

    Raises:
        httpx2.TransportError: it does not come whole.
    """
    if "Content-Encoding" in response.headers:
        yield from response.iter_bytes()
        return
    through = response.iter_raw()
    first = next(through, b"")
    yield first
    left = int(response.headers.get("Content-Length", 0)) - len(first)
    connection = response.extensions.get("network_stream")
    if left < _LARGE or connection is None or response.http_version != "HTTP/1.1":
        yield from through
        return
    while left > 0:
        try:
            piece = connection.read(min(left, _READ), timeout=_TIMEOUT.read)
        except httpcore2.TimeoutException as error:
            raise httpx2.ReadTimeout(str(error), request=response.request) from error
        except httpcore2.NetworkError as error:
            raise httpx2.ReadError(str(error), request=response.request) from error
        if not piece:
            raise httpx2.RemoteProtocolError("the peer closed the connection", request=response.request)
        left -= len(piece)
        yield piece


def read(listed: Listing, file: RemoteFile, start: int, end: int) -> bytes:
    """A few bytes of a file.

    Raises:
        GemmaqError: they cannot be had.
    """

    def attempt() -> bytes:
        with content(listed, file, start, end) as response:
            if response.status_code == 200:  # the server ignores ranges
                data = bytearray()
                for chunk in response.iter_raw():
                    data += chunk
                    if len(data) >= end:
                        break
                return bytes(data[start:end])
            return bytes(response.read())

    return patiently(listed.ref, attempt, file.path)


def patiently(ref: Ref, attempt: Callable[[], Result], path: str | None = None) -> Result:
    """Try, and try again after what may pass: lost connections, 429 and 5xx; waiting as long as the server says.

    Raises:
        GemmaqError: what failed at last, in words.
    """
    for number in range(ATTEMPTS):
        try:
            return attempt()
        except Exception as error:
            wait = patience(error, number)
            if wait is None:
                raise translate(error, ref, path) from error
            time.sleep(wait)
    raise AssertionError("the last attempt has no patience")


def patience(error: Exception, failures: int) -> float | None:
    """Seconds to wait before another attempt, None if there is no point in one."""
    if failures >= ATTEMPTS - 1:
        return None
    wait = FIRST_WAIT * 2**failures
    if isinstance(error, errors.HfHubHTTPError) and error.response is not None:
        if error.response.status_code not in _AGAIN:
            return None
        asked = error.response.headers.get("Retry-After", "")
        return min(float(asked) if asked.isdigit() else wait, _LONGEST_WAIT)
    if isinstance(error, httpx2.ConnectError) and isinstance(_root(error), socket.gaierror):
        return None  # a name that is not found will not be found in a second
    if isinstance(error, httpx2.TransportError):
        return None if isinstance(error, (httpx2.ProxyError, httpx2.UnsupportedProtocol)) else wait
    return None


def translate(error: Exception, ref: Ref, path: str | None = None) -> GemmaqError:
    """An error of the client in our words and with our exit code."""
    if isinstance(error, GemmaqError):
        return error
    for kind, tell in _TOLD.items():  # in order: subclasses first
        if isinstance(error, kind):
            return tell(error, ref, path)
    raise error


def _page(ref: Ref) -> str:
    return f"{endpoint()}/{ref.repo}"


def _gated(error: Any, ref: Ref, path: str | None) -> GemmaqError:
    if _has_token() and error.response is not None and error.response.status_code == 403:
        return AuthError(f"{ref.repo} is gated and your account has no access", f"accept its terms at {_page(ref)}")
    return AuthError(f"{ref.repo} is gated", f"accept its terms at {_page(ref)}, then `hf auth login` or set HF_TOKEN")


def _no_repo(error: Any, ref: Ref, path: str | None) -> GemmaqError:
    if _has_token():
        return NotFoundError(f"{ref.repo} does not exist on {_host()}, or your token has no access to it")
    return NotFoundError(
        f"{ref.repo} does not exist on {_host()}, or is private", "check its name; for a private one set HF_TOKEN"
    )


def _no_revision(error: Any, ref: Ref, path: str | None) -> GemmaqError:
    return NotFoundError(f"{ref.repo} has no revision {ref.revision or 'main'}", f"see {_page(ref)}/tree/main")


def _no_file(error: Any, ref: Ref, path: str | None) -> GemmaqError:
    return NotFoundError(f"{ref} has no file {path or ref.part}")


def _refused(error: Any, ref: Ref, path: str | None) -> GemmaqError:
    """Any other answer of the Hub that is not a success."""
    response = error.response
    status = response.status_code if response is not None else 0
    if status in (401, 403):
        if _has_token():
            return AuthError(
                f"{_host()} refuses the token ({status})", "make a new one at its settings, then set HF_TOKEN"
            )
        return AuthError(f"{ref.repo} needs a token ({status})", "`hf auth login`, or set HF_TOKEN")
    what = {429: "asks to slow down (429)"}.get(status, f"answers {status}")
    return NetworkError(f"{_host()} {what} for {path or ref}", "try again later; what was fetched is kept")


def _is_offline(error: Any, ref: Ref, path: str | None) -> GemmaqError:
    return NetworkError(
        f"{ref} is not cached, and the network is not to be used", "leave out --offline or HF_HUB_OFFLINE"
    )


def _lost(error: Any, ref: Ref, path: str | None) -> GemmaqError:
    cause = _root(error)
    if isinstance(error, httpx2.UnsupportedProtocol):
        return _bad_endpoint(error, ref, path)
    if isinstance(cause, socket.gaierror):
        what = f"the name {_host()} is not found"
    elif isinstance(error, httpx2.TimeoutException):
        what = f"{_host()} does not answer"
    elif isinstance(error, httpx2.ConnectError):
        what = f"{_host()} cannot be reached: {cause}"
    elif isinstance(error, httpx2.TooManyRedirects):
        what = f"{_host()} redirects in circles"
    else:
        what = f"the connection to {_host()} was lost"
    return NetworkError(
        f"{what} ({path or ref})",
        "check the network, the proxy and HF_ENDPOINT and run it again; what was fetched is kept",
    )


def _no_hub(error: Any, ref: Ref, path: str | None) -> GemmaqError:
    return NetworkError(f"what {_host()} answers for {ref} is not a Hub's answer", "check HF_ENDPOINT and the proxy")


def _bad_endpoint(error: Any, ref: Ref, path: str | None) -> GemmaqError:
    return NetworkError(f"{endpoint()} is no address", "check HF_ENDPOINT")


def _bad_name(error: Any, ref: Ref, path: str | None) -> GemmaqError:
    return NotFoundError(f"{ref.repo} is no name of a repository", "write org/name")


def _bad_home(error: Any, ref: Ref, path: str | None) -> GemmaqError:
    return OutputError(
        f"{error.filename or constants.HF_HOME} cannot be used: {error.strerror or error}",
        "HF_HOME says where tokens and models are",
    )


_TOLD: dict[type[Exception], Callable[[Any, Ref, str | None], GemmaqError]] = {
    errors.GatedRepoError: _gated,
    errors.RepositoryNotFoundError: _no_repo,
    errors.RevisionNotFoundError: _no_revision,
    errors.EntryNotFoundError: _no_file,
    errors.HFValidationError: _bad_name,
    errors.OfflineModeIsEnabled: _is_offline,
    errors.HfHubHTTPError: _refused,
    httpx2.RequestError: _lost,
    httpx2.InvalidURL: _bad_endpoint,
    ValueError: _no_hub,
    OSError: _bad_home,
}


def _root(error: BaseException) -> BaseException:
    """The first cause of an error."""
    while True:
        before = error.__cause__ or error.__context__
        if before is None:
            return error
        error = before


def _has_token() -> bool:
    return bool(huggingface_hub.get_token()) and not constants.HF_HUB_DISABLE_IMPLICIT_TOKEN


def _host() -> str:
    return endpoint().partition("//")[2].partition("/")[0]


def set_offline() -> None:
    """Forbid the network to this process, as HF_HUB_OFFLINE does."""
    constants.HF_HUB_OFFLINE = True


def commit(ref: Ref, sources: Mapping[str, Path | bytes], message: str, private: bool, bars: bool) -> tuple[str, str]:
    """Add files to a repository in one commit, made with its branch if it is missing; the commit and its page.

    With `bars` the client shows on stderr how far it is.

    Raises:
        AuthError: there is no token, or it may not write there.
        GemmaqError: see `translate`.
    """
    if not _has_token():
        raise AuthError(f"{ref.repo} cannot be written without a token", "`hf auth login`, or set HF_TOKEN")
    if not bars:
        disable_progress_bars()
    api = huggingface_hub.HfApi(library_name="gemmaq", library_version=__version__)
    patiently(ref, lambda: api.create_repo(ref.repo, private=private or None, exist_ok=True))
    if ref.revision is not None:
        patiently(ref, lambda: api.create_branch(ref.repo, branch=str(ref.revision), exist_ok=True))
    operations = [
        huggingface_hub.CommitOperationAdd(path, str(source) if isinstance(source, Path) else source)
        for path, source in sources.items()
    ]
    made: Any = patiently(
        ref, lambda: api.create_commit(ref.repo, operations, commit_message=message, revision=ref.revision)
    )
    return str(made.oid), str(made.commit_url)
