"""What the fake Hub holds: repositories, their commits, and blobs that stay on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LFS_SUFFIXES = (".safetensors", ".gguf", ".bin", ".model", ".npz", ".pt", ".png", ".dat", ".imatrix")
LFS_NAMES = ("tokenizer.json",)

Files = Path | Mapping[str, bytes | str | Path]


@dataclass(frozen=True, slots=True)
class Blob:
    """The content of a file.

    Attributes:
        size: bytes.
        oid: SHA-1 of the git blob; of the pointer for an LFS file.
        sha256: of an LFS file, None for a regular one.
        source: the bytes, or where they lie on disk.
    """

    size: int
    oid: str
    sha256: str | None
    source: bytes | Path

    @property
    def etag(self) -> str:
        """What the Hub tells of a file: SHA-256 of an LFS file, SHA-1 of a regular one."""
        return self.sha256 or self.oid

    def lfs(self, size: int) -> dict[str, Any]:
        """The `lfs` object of a listing, for an LFS file of that (perhaps untrue) size."""
        assert self.sha256 is not None
        return {"oid": self.sha256, "sha256": self.sha256, "size": size, "pointerSize": len(_pointer(self))}

    def read(self) -> bytes:
        """The bytes of a small file."""
        return self.source if isinstance(self.source, bytes) else self.source.read_bytes()


def git_oid(data: bytes) -> str:
    """SHA-1 that git gives a blob."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _pointer(blob: Blob) -> bytes:
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{blob.sha256}\nsize {blob.size}\n".encode()


def is_lfs(name: str, size: int, lfs_from: int) -> bool:
    """Whether a file of that name is kept in LFS; empty files never are."""
    named = name.endswith(LFS_SUFFIXES) or name.rpartition("/")[2] in LFS_NAMES
    return size > 0 and (named or size >= lfs_from)


def regular_blob(source: bytes | Path) -> Blob:
    """A file kept in git itself."""
    data = source if isinstance(source, bytes) else source.read_bytes()
    return Blob(len(data), git_oid(data), None, source)


def lfs_blob(source: bytes | Path, size: int, sha256: str | None = None) -> Blob:
    """A file kept in LFS; its digest is computed where none is given, without holding the file in memory."""
    if sha256 is None and isinstance(source, bytes):
        sha256 = hashlib.sha256(source).hexdigest()
    elif sha256 is None:
        with open(source, "rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    unnamed = Blob(size, "", sha256, source)
    return Blob(size, git_oid(_pointer(unnamed)), sha256, source)


def blobs(files: Files, lfs_from: int, digests: Mapping[str, str]) -> dict[str, Blob]:
    """The blobs of a folder, or of files given by name; folders are walked, `.git` and `.cache` left out."""
    if isinstance(files, Path):
        hidden = {".git", ".cache"}
        paths = (p for p in files.rglob("*") if p.is_file() and not hidden & set(p.relative_to(files).parts))
        files = {path.relative_to(files).as_posix(): path for path in paths}
    result = {}
    for name, given in sorted(files.items()):
        source = given.encode() if isinstance(given, str) else given
        size = len(source) if isinstance(source, bytes) else source.stat().st_size
        lfs = is_lfs(name, size, lfs_from)
        result[name] = lfs_blob(source, size, digests.get(name)) if lfs else regular_blob(source)
    return result


@dataclass(frozen=True, slots=True)
class Commit:
    """A state of all files."""

    sha: str
    files: Mapping[str, Blob]
    message: str
    parent: str | None = None


def make_commit(files: Mapping[str, Blob], message: str, parent: str | None = None) -> Commit:
    """A commit named by what it holds, so that the same files give the same name in every run."""
    what = [parent, message, sorted((name, blob.etag, blob.size) for name, blob in files.items())]
    return Commit(hashlib.sha1(json.dumps(what).encode()).hexdigest(), dict(files), message, parent)


@dataclass(slots=True)
class Repo:
    """A model repository: commits and the names that point at them.

    `gated` is "files" where who has no access may list the files but not read them, as the Hub does, or "all" where
    not even the listing is answered.
    """

    id: str
    gated: str = ""
    private: bool = False
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    lfs: dict[str, Blob] = field(default_factory=dict)

    @property
    def namespace(self) -> str:
        return self.id.partition("/")[0]

    def put(self, commit: Commit, branch: str) -> Commit:
        """Make a commit the head of a branch."""
        self.commits[commit.sha] = commit
        self.branches[branch] = commit.sha
        self.lfs.update({blob.sha256: blob for blob in commit.files.values() if blob.sha256})
        return commit

    def find(self, revision: str) -> Commit | None:
        """The commit of a branch, a tag, or a name of at least 7 digits."""
        name = revision.removeprefix("refs/heads/").removeprefix("refs/tags/")
        sha = self.branches.get(name) or self.tags.get(name)
        if sha is None and len(revision) >= 7:
            sha = next((sha for sha in self.commits if sha.startswith(revision)), None)
        return self.commits[sha] if sha else None
