"""Names of models, and the repository that a source means."""

from __future__ import annotations

import os
from pathlib import Path

from gemmaq.files.names import split_type, stem
from gemmaq.hub import Ref, parse


def repository(source: str) -> Ref | None:
    """The repository that a source means, None for an existing path or anything else."""
    return None if os.path.exists(os.path.expanduser(source)) else parse(source)


def name_of_folder(path: Path) -> str:
    """Name of the model in a folder: the folder's, or for a snapshot in the Hub's cache the repository's."""
    repository = path.parents[1].name if path.parent.name == "snapshots" else ""
    return repository.rpartition("--")[2] if repository.startswith("models--") else path.name


def name_of_file(path: Path) -> str:
    """Name of the model in a GGUF file: the file's without shard number and quantization type."""
    return split_type(stem(path.name))[0]
