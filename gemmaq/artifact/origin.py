"""The origin of a source: its files, and the repository and commit they were downloaded from, as far as recorded."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gemmaq.checkpoint import Checkpoint, Tensor, paths_of
from gemmaq.files.replacing import DOWNLOADS
from gemmaq.hub import is_repository, parse

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_RECORDS = Path(DOWNLOADS)
_DESCRIBING = ("config.json", "generation_config.json", "model.safetensors.index.json", "README.md")
"""Small files of a folder that a conversion reads, apart from those of tokenizer and image processor."""
_SLACK = 1.0
"""Seconds that a file may be younger than its record; the Hub's own tools allow as much."""


@dataclass(frozen=True, slots=True)
class Record:
    """The record of a file that was downloaded from the Hub.

    Attributes:
        repo: `org/name`, None if the record does not name it.
        commit: Commit of the repository.
        sha256: Digest in hex, None for a small file.
    """

    repo: str | None
    commit: str
    sha256: str | None


@dataclass(frozen=True, slots=True)
class File:
    """A file of a source.

    Attributes:
        name: Path in its repository or folder.
        path: Local file.
        size: Bytes.
        record: Record of its download, None if there is none.
    """

    name: str
    path: Path
    size: int
    record: Record | None


@dataclass(frozen=True, slots=True)
class Origin:
    """The origin of a source.

    Attributes:
        name: Name of the model.
        repo: `org/name`, None if not recorded.
        commit: Commit that all weights are from, None if not recorded.
        format: Format of the checkpoint.
        files: All files that were read, weights first.
        folders: Their folders, as the user wrote them and with links resolved.
        weights: Number of the files that hold weights.
    """

    name: str
    repo: str | None
    commit: str | None
    format: str
    files: tuple[File, ...]
    folders: frozenset[str]
    weights: int


def of(checkpoint: Checkpoint, tensors: Sequence[Tensor]) -> Origin:
    """The origin of a checkpoint of which these tensors are read; where an adapter is merged, that of its base."""
    adapter = checkpoint.adapter
    others = set() if adapter is None else {path.parent for path in (adapter.config, *paths_of(adapter.weights))}
    weights = [path for path in paths_of(tensors) if path.parent not in others]
    small: list[Path] = []
    if checkpoint.format != "gguf":
        describing = [weights[0].parent / name for name in _DESCRIBING]
        small = [*describing, *checkpoint.tokenizer_files.verbatim.values(), *checkpoint.processor_files]
    existing = [path for path in dict.fromkeys(small) if path.is_file() and path.parent not in others]
    return _origin(checkpoint.name, checkpoint.format, weights, existing)


def of_adapter(checkpoint: Checkpoint) -> Origin | None:
    """The origin of the adapter that is merged into a checkpoint, None if there is none."""
    adapter = checkpoint.adapter
    if adapter is None:
        return None
    folder = adapter.config.parent
    own = [path for path in checkpoint.tokenizer_files.verbatim.values() if folder in path.parents]
    small = [adapter.config, folder / "README.md", *own]
    existing = [path for path in dict.fromkeys(small) if path.is_file()]
    return _origin(checkpoint.name, "peft", list(paths_of(adapter.weights)), existing)


def _origin(name: str, format: str, weights: Sequence[Path], small: Sequence[Path]) -> Origin:
    files = tuple(_file(path) for path in (*weights, *small))
    records = [file.record for file in files[: len(weights)]]
    commits = {(record.repo, record.commit) if record else (None, None) for record in records}
    repo, commit = commits.pop() if len(commits) == 1 else (None, None)
    folders = {str(path.parent) for path in weights} | {str(file.path.parent) for file in files}
    return Origin(name, repo, commit, format, files, frozenset(folders), len(weights))


def _file(path: Path) -> File:
    """A file with its record, its folder's links resolved."""
    resolved = path.parent.resolve() / path.name
    size = resolved.stat().st_size
    for root in resolved.parents:
        name = resolved.relative_to(root).as_posix()
        record = _record_in_cache(root, resolved) or _record_of_pull(root, name, resolved)
        if record is not None:
            return File(name, resolved, size, record)
    return File(path.name, resolved, size, None)


def _record_in_cache(root: Path, path: Path) -> Record | None:
    """The record of a file in the Hub's cache if `root` is the folder of a snapshot; blobs are named by digest."""
    repository = root.parents[1].name if root.parent.name == "snapshots" else ""
    if not repository.startswith("models--") or not _COMMIT.fullmatch(root.name):
        return None
    blob = Path(os.path.realpath(path))
    is_digest = blob.parent == root.parents[1] / "blobs" and _SHA256.fullmatch(blob.name)
    repo = repository.removeprefix("models--").replace("--", "/", 1)
    return Record(repo if is_repository(repo) else None, root.name, blob.name if is_digest else None)


def _record_of_pull(root: Path, name: str, path: Path) -> Record | None:
    """The record of a file that was downloaded into the folder `root`, None if the file has changed since.

    Three lines, as the Hub's tools write them: commit, etag (SHA-256 of a large file), time; `gemmaq pull` adds a
    fourth, the repository.
    """
    try:
        lines = (root / _RECORDS / f"{name}.metadata").read_text("utf-8").splitlines()
        commit, etag, time = lines[0].strip(), lines[1].strip(), float(lines[2])
        has_changed = path.stat().st_mtime - _SLACK > time
    except (OSError, ValueError, IndexError):
        return None
    if has_changed or not _COMMIT.fullmatch(commit):
        return None
    ref = parse(lines[3].strip()) if len(lines) > 3 else None
    return Record(ref.repo if ref else None, commit, etag if _SHA256.fullmatch(etag) else None)
