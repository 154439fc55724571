"""Sending an artifact: only what the repository does not have, in one commit."""

from __future__ import annotations

from collections.abc import Sequence

from gemmaq.artifact.publish import Entry, changed
from gemmaq.errors import NotFoundError
from gemmaq.hub import Ref, client


def missing(ref: Ref, wanted: Sequence[Entry]) -> list[Entry]:
    """Those files that the repository does not have in this form; all of them if it does not exist.

    Raises:
        GemmaqError: the Hub cannot be asked.
    """
    try:
        listed = client.listing(ref)
    except NotFoundError:
        return list(wanted)
    return changed(wanted, {file.path: file.etag for file in listed.files})


def send(ref: Ref, files: Sequence[Entry], private: bool, bars: bool = False) -> tuple[str, str]:
    """Make the repository and the branch where they are missing, and send files; the commit and its page.

    Args:
        ref: where to.
        files: to be sent.
        private: whether a new repository is.
        bars: whether the client may show its progress.

    Raises:
        AuthError: no token, or one that may not write there.
        NetworkError: the Hub cannot be reached.
    """
    sources = {entry.path: entry.local if entry.local is not None else entry.data for entry in files}
    return client.commit(ref, sources, f"Upload {len(files)} files with gemmaq", private, bars)
