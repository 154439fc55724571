"""The Hub's cache on disk, in the layout all its tools read: blobs by digest, snapshots of links to them, refs."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from gemmaq.hub import Listing, Ref, RemoteFile

_COMMIT = re.compile(r"[0-9a-f]{40}")
_PARTIAL = "gemmaq.incomplete"


def snapshot(root: Path, commit: str) -> Path:
    """The folder of a commit within a repository's cache."""
    return root / "snapshots" / commit


def held(root: Path, listed: Listing, file: RemoteFile) -> bool:
    """Whether a file is there, whole."""
    path = snapshot(root, listed.commit) / file.path
    try:
        return path.stat().st_size == file.size
    except OSError:
        return False


def blob(root: Path, file: RemoteFile) -> Path:
    """Where its bytes belong."""
    return root / "blobs" / file.etag


def partial(root: Path, file: RemoteFile) -> Path:
    """Where its bytes grow, under a name that the next run finds again."""
    return root / "blobs" / f"{file.etag}.{_PARTIAL}"


def adopt(root: Path, file: RemoteFile) -> Path:
    """`partial`, grown out of what an interrupted run of another tool left if that is more; such leftovers go.

    To be called under the lock of the blob, which other tools hold while they write theirs.
    """
    mine = partial(root, file)
    left = [path for path in mine.parent.glob(f"{file.etag}.*.incomplete") if path != mine and path.is_file()]
    left += [path for path in (mine.parent / f"{file.etag}.incomplete",) if path.is_file()]
    have = mine.stat().st_size if mine.is_file() else 0
    best = max(left, key=lambda path: path.stat().st_size, default=None)
    if best is not None and have < best.stat().st_size <= file.size:
        best.replace(mine)
    for path in left:
        path.unlink(missing_ok=True)
    return mine


def link(root: Path, listed: Listing, file: RemoteFile) -> None:
    """Make a blob appear in its snapshot, as a link or, where there are none, as a copy."""
    target = snapshot(root, listed.commit) / file.path
    target.parent.mkdir(parents=True, exist_ok=True)
    source = blob(root, file)
    new = target.with_name(f".{target.name}.gemmaq")
    new.unlink(missing_ok=True)  # of a run that was killed; the lock of the blob keeps others out
    try:
        new.symlink_to(os.path.relpath(source, target.parent))
    except OSError:
        shutil.copyfile(source, new)
    new.replace(target)


def remember(root: Path, listed: Listing) -> None:
    """Note what the revision stands for, so that it is found again offline."""
    revision = listed.ref.revision or "main"
    if revision == listed.commit:
        return
    path = root / "refs" / revision
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(listed.commit)


def recall(root: Path, ref: Ref) -> Path | None:
    """The snapshot of a revision, None if none was ever fetched."""
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
