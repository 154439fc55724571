"""SHA-256 of large files, remembered from run to run as long as nothing says that a file changed.

A digest is taken for that of a file only if size, inode, device, the times of the last change of content and of inode,
and the first and last bytes are those of the file that was hashed. The second time, ctime, is one that programs cannot
set. A file that changed shortly before it was hashed is not remembered: two changes may have the same time.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

from gemmaq.files import caches

SMALLEST = 4 << 20
"""Bytes from which on a digest is remembered; smaller files are hashed in no time."""
_SETTLED_NS = 3 * 10**9
"""Nanoseconds that a file must not have changed for; the coarsest file systems count time in steps of 2 seconds."""
_ENDS = 64 << 10
"""Bytes at either end that are compared, at the beginning with the header or most of it."""
_MOST = 4096
"""Number of entries."""
_LARGEST_ENTRY = 1 << 10
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Identity:
    """What tells a file from others, and from itself before a change.

    Attributes:
        size: bytes.
        device: number of its file system.
        inode: number of its inode.
        changed: time of the last change of its content, in nanoseconds.
        touched: time of the last change of its inode, in nanoseconds.
    """

    size: int
    device: int
    inode: int
    changed: int
    touched: int

    @classmethod
    def of(cls, stat: os.stat_result) -> Identity:
        """The identity of a file with this status."""
        return cls(stat.st_size, stat.st_dev, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns)

    @property
    def content(self) -> tuple[int, int, int, int]:
        """All but the time of the inode, which other names and permissions change too."""
        return self.size, self.device, self.inode, self.changed

    def is_settled(self, now: int) -> bool:
        """Whether the last change was long enough before `now`, in nanoseconds; one in the future was not."""
        return max(self.changed, self.touched) + _SETTLED_NS <= now


def recall(path: Path, identity: Identity) -> str | None:
    """The digest of a file with this identity, in hex; None if it is not known for certain.

    An entry that another user may have written, or that is damaged, counts as none.
    """
    if identity.size < SMALLEST:
        return None
    try:
        entry = _read(_entry(path))
        if entry is None or entry["file"] != asdict(identity) or entry["ends"] != _ends(path, identity.size):
            return None
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    digest = entry["sha256"]
    return digest if isinstance(digest, str) and _SHA256.fullmatch(digest) else None


def keep(path: Path, identity: Identity, digest: str, *, since: int) -> None:
    """Remember a digest; a folder that cannot be written is ignored.

    Args:
        path: the file.
        identity: its identity before it was hashed.
        digest: SHA-256 in hex.
        since: time at which hashing began, in nanoseconds.
    """
    if identity.size < SMALLEST or not identity.is_settled(since):
        return
    with suppress(OSError):
        ends = _ends(path, identity.size)
        if Identity.of(path.stat()) != identity:
            return
        entry = _entry(path)
        entry.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        content = json.dumps({"file": asdict(identity), "ends": ends, "sha256": digest}).encode()
        _write(entry, content + b"\n" + sha256(content).hexdigest().encode())
        _make_room(entry.parent)


def _entry(path: Path) -> Path:
    """The entry of a file, named by where it lies."""
    return caches.folder("digests") / sha256(os.fsencode(os.path.realpath(path))).hexdigest()


def _read(entry: Path) -> dict[str, object] | None:
    """Content of an entry; None if others may have written it, or if it is damaged."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    with open(os.open(entry, flags), "rb") as file:
        stat = os.fstat(file.fileno())
        if hasattr(os, "geteuid") and (stat.st_uid != os.geteuid() or stat.st_mode & 0o022):
            return None
        content, _, digest = file.read(_LARGEST_ENTRY).partition(b"\n")
    if sha256(content).hexdigest().encode() != digest:
        return None
    value = json.loads(content)
    return value if isinstance(value, dict) else None


def _write(entry: Path, data: bytes) -> None:
    descriptor, part = tempfile.mkstemp(suffix=".partial", dir=entry.parent)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
        os.replace(part, entry)
    finally:
        with suppress(OSError):
            os.unlink(part)


def _make_room(folder: Path) -> None:
    """Remove the oldest entries beyond the limit."""
    entries = list(folder.iterdir())
    if len(entries) <= _MOST:
        return
    by_age = sorted(entries, key=lambda path: path.stat().st_mtime_ns)
    for path in by_age[: len(entries) - _MOST]:
        with suppress(OSError):
            path.unlink()


def _ends(path: Path, size: int) -> str:
    """SHA-256 of the first and the last bytes of a file, in hex."""
    with path.open("rb") as file:
        state = sha256(file.read(_ENDS))
        file.seek(max(0, size - _ENDS))
        state.update(file.read(_ENDS))
    return state.hexdigest()


def now() -> int:
    """The time, as files have it, in nanoseconds."""
    return time.time_ns()
