"""A finished artifact as it is to be published: its files with their digests, and what goes beside them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gemmaq.errors import InputError, NotFoundError
from gemmaq.release import card

SUMS = "SHA256SUMS"
CARD = "README.md"
PARAMS = "params"

_BLOCK = 1 << 22
_SETTINGS = {"stop": ["<end_of_turn>"], "temperature": 1, "top_k": 64, "top_p": 0.95}
"""What Ollama is to sample with: the values of Gemma 3's generation_config.json."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file to publish.

    Attributes:
        path: within the repository.
        size: bytes.
        sha256: of its content.
        oid: git's id of it as a small file.
        local: where it lies, None for one that is made for publishing.
        data: its content where it is made.
    """

    path: str
    size: int
    sha256: str
    oid: str
    local: Path | None = None
    data: bytes = b""


def entries(folder: Path, repo: str, progress: Callable[[str, int, int], None]) -> list[Entry]:
    """All files of an artifact, and a card, checksums and Ollama's settings where it has none.

    Args:
        folder: of the artifact, or of several in folders of their own.
        repo: where it is to be published, for the lines that run it.
        progress: told a file's name, its bytes read and its bytes in all.

    Raises:
        NotFoundError: there is nothing to publish.
        InputError: a model in it cannot be read.
    """
    if not folder.is_dir():
        raise NotFoundError(f"{folder} is no folder", "name the folder that gemmaq convert made")
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and not _is_hidden(path, folder))
    for path in paths:
        if path.is_symlink() and folder.resolve() not in path.resolve().parents:
            raise InputError(f"{path} leads out of {folder}", "publish real files")
    models = card.models(folder)
    if not models:
        raise NotFoundError(f"{folder} holds no model", "name the folder that gemmaq convert made")
    found = [_of_file(path, path.relative_to(folder).as_posix(), progress) for path in paths]
    have = {entry.path for entry in found}
    made = []
    if CARD not in have:
        made.append(_of_data(CARD, card.text(repo, models, found).encode()))
    if PARAMS not in have and any(model.format == "gguf" for model in models):
        made.append(_of_data(PARAMS, (json.dumps(_SETTINGS) + "\n").encode()))
    listed = sorted([*found, *made], key=lambda entry: entry.path)
    if SUMS not in have:
        lines = "".join(f"{entry.sha256}  {entry.path}\n" for entry in listed)
        listed.append(_of_data(SUMS, lines.encode()))
    return listed


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _of_file(path: Path, name: str, progress: Callable[[str, int, int], None]) -> Entry:
    size = path.stat().st_size
    sha256, sha1 = hashlib.sha256(), hashlib.sha1(f"blob {size}\0".encode())
    done = 0
    small = size < _BLOCK  # git's own id is wanted of small files alone
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            sha256.update(block)
            if small:
                sha1.update(block)
            done += len(block)
            progress(name, done, size)
    return Entry(name, size, sha256.hexdigest(), sha1.hexdigest() if small else "", path)


def _of_data(name: str, data: bytes) -> Entry:
    oid = hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
    return Entry(name, len(data), hashlib.sha256(data).hexdigest(), oid, data=data)


def changed(wanted: Sequence[Entry], present: dict[str, str]) -> list[Entry]:
    """Those that a repository does not have yet.

    Args:
        wanted: all files.
        present: path -> sha256 of a large file, or git's id of a small one.
    """
    return [entry for entry in wanted if present.get(entry.path) not in (entry.sha256, entry.oid)]
