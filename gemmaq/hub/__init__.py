"""Models on the Hugging Face Hub: what is meant, what is there, fetched, and sent.

`client` is the only importer of huggingface_hub; it is imported where it is needed, after the environment is settled.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from gemmaq.errors import InputError

_REF = re.compile(
    r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w./-]+))?(:(?P<part>[\w./-]+))?", re.ASCII
)
_UNSAFE = re.compile(r'[\\\x00-\x1f<>:"|?*]|^/|(^|/)\.{0,2}(/|$)')


@dataclass(frozen=True, slots=True)
class Ref:
    """What a user means by `org/name@revision:part`.

    Attributes:
        repo: `org/name`.
        revision: branch, tag or commit; None for the default branch.
        part: of a GGUF repository, the type (`Q4_0`) or the file's name; None for the whole.
    """

    repo: str
    revision: str | None = None
    part: str | None = None

    def __str__(self) -> str:
        return self.repo + (f"@{self.revision}" if self.revision else "") + (f":{self.part}" if self.part else "")


def parse(text: str) -> Ref | None:
    """The repository a source names, None if it is no repository's name."""
    found = _REF.fullmatch(text)
    if (
        found is None
        or ".." in found["repo"]
        or "--" in found["repo"]
        or re.search(r"\.\.|^/|/$", found["revision"] or "")
        or (text.endswith((".gguf", "/")) and ":" not in text)
    ):
        return None
    return Ref(found["repo"], found["revision"], found["part"])


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a repository.

    Attributes:
        path: within it.
        size: bytes.
        sha256: of a large file.
        oid: git's id of a small one.
    """

    path: str
    size: int
    sha256: str | None
    oid: str

    @property
    def etag(self) -> str:
        """What its blob is called in the cache."""
        return self.sha256 or self.oid


@dataclass(frozen=True, slots=True)
class Listing:
    """A repository at one commit.

    Attributes:
        ref: as it was asked for.
        commit: what the revision stands for.
        files: all of them.
    """

    ref: Ref
    commit: str
    files: tuple[RemoteFile, ...]

    def find(self, path: str) -> RemoteFile | None:
        """The file of that name."""
        return next((file for file in self.files if file.path == path), None)


def check_name(path: str, ref: Ref) -> None:
    """Refuse a file name that would leave its folder or upset a file system.

    Raises:
        InputError: naming it.
    """
    if _UNSAFE.search(path) or len(path) > 512:
        raise InputError(f"{ref} holds a file with the unsafe name {path!r:.80}", "do not trust this repository")
