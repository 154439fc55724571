"""Requests to the Hub: listings, bytes of files, commits."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpcore2
import httpx2
import huggingface_hub
from huggingface_hub import constants, hf_hub_url
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    WeakFileLock,
    build_hf_headers,
    disable_progress_bars,
    get_session,
    hf_raise_for_status,
)

from gemmaq import __version__
from gemmaq.errors import AuthError
from gemmaq.hub import Listing, Ref, RemoteFile, check_name
from gemmaq.hub.errors import endpoint, has_token, not_a_hub
from gemmaq.hub.retry import retried

_LARGE = 1 << 22
"""Bytes of a body from which reading past httpx pays off."""
_READ = 1 << 20
"""Bytes read at a time there."""
_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
"""Commits and digests, which become names of files."""
_TIMEOUT = httpx2.Timeout(connect=15, read=30, write=60, pool=60)


def is_offline() -> bool:
    """Whether the environment or --offline forbids the network."""
    return bool(constants.is_offline_mode())


def set_offline() -> None:
    """Forbid the network to this process, as HF_HUB_OFFLINE does."""
    constants.HF_HUB_OFFLINE = True


def cache_folder(repo: str) -> Path:
    """Folder of a model in the Hub's cache."""
    return Path(constants.HF_HUB_CACHE) / ("models--" + repo.replace("/", "--"))


def lock(repo: str, etag: str) -> Any:
    """Lock of a blob, a context manager: the Hub's tools hold it while they write. TimeoutError after half a second."""
    path = Path(constants.HF_HUB_CACHE) / ".locks" / cache_folder(repo).name / f"{etag}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    return WeakFileLock(path, timeout=0.5)


def listing(ref: Ref) -> Listing:
    """The files of a repository at a revision.

    Raises:
        GemmaqError: It cannot be read, see `errors.translate`.
        InputError: A file has an unsafe name.
    """
    api = huggingface_hub.HfApi(library_name="gemmaq", library_version=__version__)
    try:
        info = retried(ref, lambda: api.model_info(ref.repo, revision=ref.revision, files_metadata=True, timeout=30))
    except (AttributeError, KeyError, TypeError) as error:
        raise not_a_hub(error, ref, None) from error
    files = []
    for sibling in info.siblings or ():
        check_name(sibling.rfilename, ref)
        sha256, oid = sibling.lfs.sha256 if sibling.lfs else None, sibling.blob_id or ""
        files.append(file := RemoteFile(sibling.rfilename, sibling.size or 0, sha256, oid))
        if not _DIGEST.fullmatch(file.etag):
            raise not_a_hub(None, ref, None)
    if not _DIGEST.fullmatch(info.sha or ""):
        raise not_a_hub(None, ref, None)
    return Listing(ref, str(info.sha), tuple(files))


@contextmanager
def content(listing: Listing, file: RemoteFile, *, start: int, end: int | None = None) -> Iterator[httpx2.Response]:
    """The bytes of a file from `start` to before `end`, as a response to stream.

    Raises:
        httpx2.HTTPError, HfHubHTTPError: The request failed; for `retry.wait_before_retry` or `errors.translate`.
    """
    url = hf_hub_url(listing.ref.repo, file.path, revision=listing.commit)
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
    """The body of a streamed response, piece by piece.

    After its first piece, a large body is read from the connection itself: httpx and h11 copy bytes twice, 64 kB at a
    time, which takes longer than hashing them.

    Raises:
        httpx2.TransportError: The body ends early.
    """
    if "Content-Encoding" in response.headers:
        yield from response.iter_bytes()
        return
    raw = response.iter_raw()
    first = next(raw, b"")
    yield first
    left = int(response.headers.get("Content-Length", 0)) - len(first)
    connection = response.extensions.get("network_stream")
    if left < _LARGE or connection is None or response.http_version != "HTTP/1.1":
        yield from raw
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


def read(listing: Listing, file: RemoteFile, *, start: int, end: int) -> bytes:
    """The bytes `start` to `end` of a file, held in memory.

    Raises:
        GemmaqError: They cannot be read, see `errors.translate`.
    """

    def attempt() -> bytes:
        with content(listing, file, start=start, end=end) as response:
            if response.status_code == 200:  # the server ignores ranges
                data = bytearray()
                for chunk in response.iter_raw():
                    data += chunk
                    if len(data) >= end:
                        break
                return bytes(data[start:end])
            return bytes(response.read())

    return retried(listing.ref, attempt, file.path)


@dataclass(frozen=True, slots=True)
class Change:
    """Files to add to a repository in one commit.

    Attributes:
        sources: Path in the repository -> local file or content.
        message: Message of the commit.
        parent: Commit that it has to follow.
        create_pr: Whether to open a pull request instead of writing to the branch.
    """

    sources: Mapping[str, Path | bytes]
    message: str
    parent: str
    create_pr: bool = False


def create(ref: Ref, *, private: bool, create_pr: bool = False) -> None:
    """Create a repository and a branch, where they are missing.

    Args:
        ref: Repository and branch.
        private: Whether to create the repository as a private one.
        create_pr: Whether nothing is created, since a change to it is only proposed.

    Raises:
        AuthError: There is no token, or it may not write to the repository.
        GemmaqError: The Hub cannot be asked, see `errors.translate`.
    """
    if not has_token():
        raise AuthError(f"{ref.repo} cannot be written without a token", "`hf auth login`, or set HF_TOKEN")
    if create_pr:
        return
    api = huggingface_hub.HfApi(library_name="gemmaq", library_version=__version__)
    retried(ref, lambda: api.create_repo(ref.repo, private=private or None, exist_ok=True))
    if ref.revision is not None:
        retried(ref, lambda: api.create_branch(ref.repo, branch=str(ref.revision), exist_ok=True))


def commit(ref: Ref, change: Change, *, bars: bool) -> tuple[str, str]:
    """Add files to a repository in one commit.

    Args:
        ref: Repository and branch.
        change: The files.
        bars: Whether the client may show its progress on stderr.

    Returns:
        The commit, and the address of its page or of the pull request.

    Raises:
        AuthError: The token may not write to the repository.
        MovedError: Another commit came first.
        GemmaqError: The upload failed, see `errors.translate`.
    """
    if not bars:
        disable_progress_bars()
    api = huggingface_hub.HfApi(library_name="gemmaq", library_version=__version__)
    operations = [
        huggingface_hub.CommitOperationAdd(path, str(source) if isinstance(source, Path) else source)
        for path, source in change.sources.items()
    ]

    def attempt() -> Any:
        return api.create_commit(
            ref.repo,
            operations,
            commit_message=change.message,
            revision=ref.revision,
            parent_commit=change.parent,
            create_pr=change.create_pr,
        )

    info: Any = retried(ref, attempt)
    return str(info.oid), str(info.pr_url if change.create_pr else info.commit_url)


def page(ref: Ref, commit: str) -> str:
    """Address of the page of a commit."""
    return f"{endpoint()}/{ref.repo}/commit/{commit}"
