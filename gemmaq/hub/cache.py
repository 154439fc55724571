"""The Hub's cache on disk: blobs named by digest, snapshots that link to them, and refs. All its tools share it."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from gemmaq.hub import Listing, Ref, RemoteFile

_COMMIT = re.compile(r"[0-9a-f]{40}")
_PARTIAL = "gemmaq.incomplete"


def snapshot(root: Path, commit: str) -> Path:
    """Folder of a commit in the cache of a repository."""
    return root / "snapshots" / commit


def held(root: Path, listing: Listing, file: RemoteFile) -> bool:
    """Whether the cache holds a file completely."""
    path = snapshot(root, listing.commit) / file.path
    try:
        return path.stat().st_size == file.size
    except OSError:
        return False


def blob(root: Path, file: RemoteFile) -> Path:
    """Path of a file's bytes."""
    return root / "blobs" / file.etag


def partial(root: Path, file: RemoteFile) -> Path:
    """Path of a file's bytes during the download; the next run continues it."""
    return root / "blobs" / f"{file.etag}.{_PARTIAL}"


def adopt(root: Path, file: RemoteFile) -> Path:
    """`partial`, replaced by the unfinished file of another tool if that is longer; files of other tools are deleted.

    Call it while holding the lock of the blob, which other tools hold while they write.
    """
    ours = partial(root, file)
    others = [path for path in ours.parent.glob(f"{file.etag}.*.incomplete") if path != ours and path.is_file()]
    others += [path for path in (ours.parent / f"{file.etag}.incomplete",) if path.is_file()]
    size = ours.stat().st_size if ours.is_file() else 0
    longest = max(others, key=lambda path: path.stat().st_size, default=None)
    if longest is not None and size < longest.stat().st_size <= file.size:
        longest.replace(ours)
    for path in others:
        path.unlink(missing_ok=True)
    return ours


def link(root: Path, listing: Listing, file: RemoteFile) -> None:
    """Link a blob into its snapshot; copy it where the file system has no links."""
    target = snapshot(root, listing.commit) / file.path
    target.parent.mkdir(parents=True, exist_ok=True)
    source = blob(root, file)
    new = target.with_name(f".{target.name}.gemmaq")
    new.unlink(missing_ok=True)  # left by a killed run; the lock of the blob keeps others out
    try:
        new.symlink_to(os.path.relpath(source, target.parent))
    except OSError:
        shutil.copyfile(source, new)
    new.replace(target)


def remember(root: Path, listing: Listing) -> None:
    """Store the commit of the revision, so that it can be found offline."""
    revision = listing.ref.revision or "main"
    if revision == listing.commit:
        return
    path = root / "refs" / revision
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(listing.commit)


def recall(root: Path, ref: Ref) -> Path | None:
    """Folder of the snapshot of a revision, None if it was never downloaded."""
    revision = ref.revision or "main"
    commit = revision
    if not _COMMIT.fullmatch(revision):
        try:
            commit = (root / "refs" / revision).read_text().strip()
        except OSError:
            return None
    folder = snapshot(root, commit)
    return folder if folder.is_dir() and _COMMIT.fullmatch(commit) else None


def listing(folder: Path, ref: Ref) -> Listing:
    """The files of a snapshot in the cache; their blobs are named by digest."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    files = (
        RemoteFile(path.relative_to(folder).as_posix(), path.stat().st_size, None, Path(os.path.realpath(path)).name)
        for path in paths
    )
    return Listing(ref, folder.name, tuple(files))
