"""Uploading an artifact to the Hub: only files that the repository lacks, in one commit."""

from __future__ import annotations

from collections.abc import Sequence

from gemmaq.artifact.publish import Entry, changed
from gemmaq.errors import NotFoundError
from gemmaq.hub import Ref, client


def missing(ref: Ref, files: Sequence[Entry]) -> list[Entry]:
    """The files that the repository lacks or has with another content; all of them if it does not exist.

    Raises:
        GemmaqError: The Hub cannot be asked.
    """
    try:
        listing = client.listing(ref)
    except NotFoundError:
        return list(files)
    return changed(files, {file.path: file.etag for file in listing.files})


def send(ref: Ref, files: Sequence[Entry], *, private: bool, bars: bool = False) -> tuple[str, str]:
    """Upload files. The repository and the branch are created if they are missing.

    Args:
        ref: Repository and branch.
        files: Files to upload.
        private: Whether to create the repository as a private one.
        bars: Whether the client may show its progress.

    Returns:
        The commit, and the address of its page.

    Raises:
        AuthError: There is no token, or it may not write to the repository.
        NetworkError: The Hub cannot be reached.
    """
    sources = {entry.path: entry.local if entry.local is not None else entry.data for entry in files}
    return client.commit(ref, sources, f"Upload {len(files)} files with gemmaq", private=private, bars=bars)
