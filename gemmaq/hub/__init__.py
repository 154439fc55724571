"""Models on the Hugging Face Hub: references, listings, downloads, uploads, and the cache on disk.

Only this room imports huggingface_hub, in `client`, `errors`, `guard`, `retry` and `xet`, which are imported where they
are needed: the import takes long, and it reads the environment.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

from gemmaq.errors import InputError

_REF = re.compile(
    r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w./-]+))?(:(?P<part>[\w./-]+))?", re.ASCII
)
_ADDRESS = re.compile(
    r"(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/(?!(?:datasets|spaces|docs|collections|papers|blog)/)"
    r"(?P<repo>[^/?#:@]+/[^/?#:@]+)(?::(?P<part>[\w./-]+))?"
    r"(?:/(?:(?P<page>tree|blob|resolve)/(?P<revision>[^/?#]+)(?:/(?P<file>[^?#]*))?)?)?(?:[?#].*)?",
    re.ASCII,
)
"""The web page of a model, or of a folder or file in it; without https as Ollama writes it."""
_MOST_NAME = 96
_UNSAFE = re.compile(r'[\\\x00-\x1f<>:"|?*]|^/|(^|/)\.{0,2}(/|$)')


@dataclass(frozen=True, slots=True)
class Ref:
    """A reference to a repository or a part of it, written `org/name@revision:part`.

    Attributes:
        repo: `org/name`.
        revision: Branch, tag or commit, None for the default branch.
        part: Type (`Q4_0`) or file name of a model in a GGUF repository, None for the repository as a whole.
    """

    repo: str
    revision: str | None = None
    part: str | None = None

    def __str__(self) -> str:
        return self.repo + (f"@{self.revision}" if self.revision else "") + (f":{self.part}" if self.part else "")


def parse(text: str) -> Ref | None:
    """Read a reference, or the address of its page on the Hub; None if the text is not a valid one."""
    if page := _ADDRESS.fullmatch(text):
        file = page["file"] if (page["file"] or "").endswith(".gguf") else None
        part, revision = page["part"] or file, unquote(page["revision"] or "")
        text = page["repo"] + (f"@{revision}" if revision else "") + (f":{part}" if part else "")
    match = _REF.fullmatch(text)
    if (
        match is None
        or ".." in match["repo"]
        or "--" in match["repo"]
        or re.search(r"\.\.|^/|/$", match["revision"] or "")
        or (text.endswith((".gguf", "/")) and ":" not in text)
    ):
        return None
    return Ref(match["repo"], match["revision"], match["part"])


def is_repository(name: str) -> bool:
    """Whether the Hub allows a name for a repository, `org/name`."""
    ref = parse(f"{name}@main")  # without a revision, one that ends with .gguf is a file's path
    return ref is not None and ref.repo == name and all(len(part) <= _MOST_NAME for part in name.split("/"))


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file in a repository.

    Attributes:
        path: Path in the repository.
        size: Bytes.
        sha256: Digest in hex of a large file, None for a small one.
        oid: git's id of a small file.
    """

    path: str
    size: int
    sha256: str | None
    oid: str

    @property
    def etag(self) -> str:
        """Name of its blob in the cache: the digest."""
        return self.sha256 or self.oid


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of a repository at one commit.

    Attributes:
        ref: Reference that the user gave.
        commit: Commit of its revision.
        files: All files.
    """

    ref: Ref
    commit: str
    files: tuple[RemoteFile, ...]

    def find(self, path: str) -> RemoteFile | None:
        """The file with that path, None if there is none."""
        return next((file for file in self.files if file.path == path), None)


def check_name(path: str, ref: Ref) -> None:
    """Refuse a file name that would leave its folder or upset a file system.

    Raises:
        InputError: The name is unsafe.
    """
    if _UNSAFE.search(path) or len(path) > 512:
        raise InputError(f"holds a file with the unsafe name {path!r:.80}", "do not trust this repository", path=ref)
