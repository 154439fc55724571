"""Uploading an artifact to the Hub: the files that the repository lacks, in one commit that loses nobody else's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gemmaq.artifact.footprint import Memory
from gemmaq.artifact.merge import Merged, merge
from gemmaq.artifact.publish import Entry, Local
from gemmaq.artifact.repository import Repository
from gemmaq.errors import NetworkError, NotFoundError
from gemmaq.hub import Ref, client
from gemmaq.hub.errors import MovedError

_ATTEMPTS = 8
"""Pushes that come in between, at most."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where an artifact is pushed to, and how.

    Attributes:
        ref: Repository and branch.
        subfolder: Folder of the repository, empty for none.
        private: Whether to create the repository as a private one.
        message: Message of the commit, None for the usual one.
        create_pr: Whether to open a pull request instead of writing to the branch.
        force: Whether files of the repository may be replaced.
    """

    ref: Ref
    subfolder: str = ""
    private: bool = False
    message: str | None = None
    create_pr: bool = False
    force: bool = False


@dataclass(frozen=True, slots=True)
class Pushed:
    """A push.

    Attributes:
        merged: All files, and which of them were or would be sent.
        commit: The commit, None if nothing was sent.
        page: Address of its page, or of the pull request.
    """

    merged: Merged
    commit: str | None = None
    page: str | None = None


def look(local: Local, target: Target, *, memory: Memory) -> Merged:
    """What a push would do.

    Raises:
        GemmaqError: See `merge.merge`; or the Hub cannot be asked.
    """
    try:
        repository = Repository(client.listing(target.ref), _prefix(target))
    except NotFoundError:
        repository = None
    return merge(local, repository, target.ref.repo, memory=memory, force=target.force)


def push(local: Local, target: Target, *, memory: Memory, bars: bool = False) -> Pushed:
    """Upload what the repository lacks. The repository and the branch are created if they are missing.

    If another commit comes in between, what it brought is united with the artifact, too.

    Args:
        local: The artifact.
        target: Where it goes.
        memory: What the card says of memory.
        bars: Whether the client may show its progress.

    Raises:
        AuthError: There is no token, or it may not write to the repository.
        NetworkError: The Hub cannot be reached.
        OutputError: See `merge.merge`.
    """
    merged = look(local, target, memory=memory)
    if not merged.missing:
        return Pushed(merged)
    client.create(target.ref, private=target.private, create_pr=target.create_pr)
    tried = False
    for _ in range(_ATTEMPTS):
        listing = client.listing(target.ref)
        merged = merge(local, Repository(listing, _prefix(target)), target.ref.repo, memory=memory, force=target.force)
        if not merged.missing:  # the answer to the last attempt was lost
            return Pushed(merged, listing.commit if tried else None, client.page(target.ref, listing.commit))
        message = target.message or _message(merged.missing)
        sources = {
            _prefix(target) + entry.path: entry.local if entry.local is not None else entry.data
            for entry in merged.missing
        }
        try:
            tried = True
            change = client.Change(sources, message, parent=listing.commit, create_pr=target.create_pr)
            commit, page = client.commit(target.ref, change, bars=bars)
        except MovedError:
            continue
        return Pushed(merged, commit, page)
    raise NetworkError(f"{target.ref.repo} changes too fast: {_ATTEMPTS} commits came in between", "try again later")


def _prefix(target: Target) -> str:
    return f"{target.subfolder.strip('/')}/" if target.subfolder.strip("/") else ""


def _message(files: Sequence[Entry]) -> str:
    return f"Upload {len(files)} file{'s' if len(files) > 1 else ''} with gemmaq"
