"""Names of models and repositories, from what a user types."""

from __future__ import annotations

import os
from pathlib import Path

from gemmaq.files.names import split_type, stem
from gemmaq.hub import Ref, parse


def repository(source: str) -> Ref | None:
    """The repository a source means, None if it is a path that exists or no repository's name."""
    return None if os.path.exists(os.path.expanduser(source)) else parse(source)


def name_of_folder(path: Path) -> str:
    """The folder's name; in the Hub's cache, that of the repository it is a snapshot of."""
    repository = path.parents[1].name if path.parent.name == "snapshots" else ""
    return repository.rpartition("--")[2] if repository.startswith("models--") else path.name


def name_of_file(path: Path) -> str:
    """The model's name from its GGUF file's, without shard number and quantization type."""
    return split_type(stem(path.name))[0]
