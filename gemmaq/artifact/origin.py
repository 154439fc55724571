"""Where a source comes from: its repository and commit as far as they are on record, its files and their digests."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gemmaq.checkpoint import Checkpoint, Tensor
from gemmaq.hub import parse

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_RECORDS = Path(".cache/huggingface/download")
_SPOKEN = ("config.json", "generation_config.json", "model.safetensors.index.json", "README.md")
"""Small files of a folder that say something of the result, beside those of tokenizer and image processor."""
_SLACK = 1.0
"""Seconds that a file may be younger than its record, as the Hub's own tools have it."""


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of a file that was fetched from the Hub.

    Attributes:
        repo: `org/name`, None where nobody wrote it down.
        commit: it is from.
        sha256: of its content, None for a small file.
    """

    repo: str | None
    commit: str
    sha256: str | None


@dataclass(frozen=True, slots=True)
class File:
    """A file that was read.

    Attributes:
        name: within its repository or folder.
        path: where it lies.
        size: bytes.
        record: where it comes from, None if that is not on record.
    """

    name: str
    path: Path
    size: int
    record: Record | None


@dataclass(frozen=True, slots=True)
class Origin:
    """A source, before its digests are known.

    Attributes:
        name: of the model.
        repo: `org/name`, None if not on record.
        commit: of which all weights are, None if not on record.
        format: of the checkpoint.
        files: weights first.
        places: folders they lie in, as the user and as the system call them.
    """

    name: str
    repo: str | None
    commit: str | None
    format: str
    files: tuple[File, ...]
    places: frozenset[str]


def of(checkpoint: Checkpoint, tensors: Sequence[Tensor]) -> Origin:
    """The origin of those tensors of a checkpoint that are read."""
    weights = list(dict.fromkeys(path for tensor in tensors for part in tensor.parts for path in part.span.paths))
    beside: list[Path] = []
    if checkpoint.format != "gguf":
        spoken = [weights[0].parent / name for name in _SPOKEN]
        beside = [*spoken, *checkpoint.tokenizer_files.verbatim, *checkpoint.processor_files]
    small = [path for path in dict.fromkeys(beside) if path.is_file()]
    files = tuple(_file(path) for path in (*weights, *small))
    records = [file.record for file in files[: len(weights)]]
    places = {(record.repo, record.commit) if record else (None, None) for record in records}
    repo, commit = places.pop() if len(places) == 1 else (None, None)
    called = {str(path.parent) for path in weights} | {str(file.path.parent) for file in files}
    return Origin(checkpoint.name, repo, commit, checkpoint.format, files, frozenset(called))


def _file(path: Path) -> File:
    place = path.parent.resolve() / path.name
    size = place.stat().st_size
    for root in place.parents:
        name = place.relative_to(root).as_posix()
        record = _in_cache(root, place) or _of_pull(root, name, place)
        if record is not None:
            return File(name, place, size, record)
    return File(path.name, place, size, None)


def _in_cache(root: Path, place: Path) -> Record | None:
    """The record of a file in the Hub's cache, where `root` is a snapshot's folder and blobs are named by digest."""
    repository = root.parents[1].name if root.parent.name == "snapshots" else ""
    if not repository.startswith("models--") or not _COMMIT.fullmatch(root.name):
        return None
    blob = Path(os.path.realpath(place))
    named = blob.parent == root.parents[1] / "blobs" and _SHA256.fullmatch(blob.name)
    repo = repository.removeprefix("models--").replace("--", "/", 1)
    return Record(repo, root.name, blob.name if named else None)


def _of_pull(root: Path, name: str, place: Path) -> Record | None:
    """The record that a file in a folder was fetched with, if it has not been written to since.

    Three lines, as the Hub's tools write them: commit, etag (SHA-256 of a large file), time; `gemmaq pull` adds a
    fourth, the repository.
    """
    try:
        lines = (root / _RECORDS / f"{name}.metadata").read_text("utf-8").splitlines()
        commit, etag, fetched = lines[0].strip(), lines[1].strip(), float(lines[2])
        young = place.stat().st_mtime - _SLACK > fetched
    except (OSError, ValueError, IndexError):
        return None
    if young or not _COMMIT.fullmatch(commit):
        return None
    ref = parse(lines[3].strip()) if len(lines) > 3 else None
    return Record(ref.repo if ref else None, commit, etag if _SHA256.fullmatch(etag) else None)
