"""Requests to the Hub: listings, bytes of files, commits."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from gemmaq.errors import AuthError, InputError, NetworkError
from gemmaq.hub import Listing, Ref, RemoteFile, check_name, guard
from gemmaq.hub.allowance import RefusedError
from gemmaq.hub.errors import endpoint, has_token, not_a_hub
from gemmaq.hub.retry import retried

_IN_MEMORY = 1 << 26
"""Bytes that `read` gives at most: side files and headers are smaller."""
_LARGEST = 1 << 50
"""Bytes of a file that a listing may claim."""
_SURPLUS = 1 << 20
"""Bytes beyond those of a file after which its answer is cut off; the reader complains before."""
_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
"""Commits and digests, which become names of files."""


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


def _api() -> huggingface_hub.HfApi:
    guard.install()
    return huggingface_hub.HfApi(library_name="gemmaq", library_version=__version__)


def listing(ref: Ref) -> Listing:
    """The files of a repository at a revision.

    Raises:
        GemmaqError: It cannot be read, see `errors.translate`.
        InputError: A file has an unsafe name.
    """
    api = _api()
    try:
        info = retried(ref, lambda: api.model_info(ref.repo, revision=ref.revision, files_metadata=True, timeout=30))
    except (AttributeError, KeyError, TypeError, RecursionError, OverflowError) as error:
        raise not_a_hub(error, ref, None) from error
    files = []
    for sibling in info.siblings or ():
        sha256, oid = sibling.lfs.sha256 if sibling.lfs else None, sibling.blob_id or ""
        size = sibling.size or 0
        texts = (sibling.rfilename, sha256 or "", oid)
        if not all(isinstance(text, str) for text in texts) or type(size) is not int or size < 0:
            raise not_a_hub(None, ref, None)
        check_name(sibling.rfilename, ref)
        files.append(file := RemoteFile(sibling.rfilename, size, sha256, oid))
        if not _DIGEST.fullmatch(file.etag):
            raise not_a_hub(None, ref, None)
        if size > _LARGEST:
            raise InputError(f"claims {size:.4g} bytes", "do not trust this repository", path=f"{ref}/{file.path}")
    if not isinstance(info.sha, str | None) or not _DIGEST.fullmatch(info.sha or ""):
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
    if start or end is not None:
        headers["Range"] = f"bytes={start}-{'' if end is None else end - 1}"
    guard.install()
    extensions = guard.for_file(file.size + _SURPLUS)
    with get_session().stream("GET", url, headers=headers, extensions=extensions) as response:
        if response.status_code >= 400:
            response.read()
        hf_raise_for_status(response)
        yield response


def read(listing: Listing, file: RemoteFile, *, start: int, end: int) -> bytes:
    """The bytes `start` to `end` of a file, held in memory.

    Raises:
        InputError: They are more than a side file or a header has.
        GemmaqError: They cannot be read, see `errors.translate`.
    """
    if end - start > _IN_MEMORY:
        raise InputError(
            f"has {end - start:,} bytes, more than the {_IN_MEMORY:,} that such a file may have",
            "do not trust this repository",
            path=f"{listing.ref}/{file.path}",
        )

    def attempt() -> bytes:
        with content(listing, file, start=start, end=end) as response:
            sent = response.headers.get("Content-Range", "")
            if response.status_code == 206 and not sent.startswith(f"bytes {start}-"):
                raise NetworkError(f"the server sent another range of {file.path} than it was asked for")
            if response.status_code == 200 and start > _IN_MEMORY:
                raise RefusedError(f"the server ignores that a part of {file.path} was asked for")
            skip = start if response.status_code == 200 else 0  # a server that ignores ranges
            data = bytearray()
            for piece in response.iter_raw():
                data += piece[skip:]
                skip = max(0, skip - len(piece))
                if len(data) >= end - start:
                    break
            if len(data) < end - start:
                raise httpx2.RemoteProtocolError("the body is too short", request=response.request)
            return bytes(data[: end - start])

    return retried(listing.ref, attempt, file.path) if end > start else b""


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
    api = _api()
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
    api = _api()
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
