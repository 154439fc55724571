"""Names of models, and the repository that a source means."""

from __future__ import annotations

import os
from pathlib import Path

from gemmaq.files.names import DRAFTER, is_drafter, split_type, stem
from gemmaq.hub import Ref, parse
from gemmaq.models import identity


def repository(source: str) -> Ref | None:
    """The repository that a source means, None for an existing path or anything else."""
    return None if os.path.exists(os.path.expanduser(source)) else parse(source)


def name_of_folder(path: Path) -> str:
    """Name of the model in a folder: the folder's, or for a snapshot in the Hub's cache the repository's."""
    repository = path.parents[1].name if path.parent.name == "snapshots" else ""
    return repository.rpartition("--")[2] if repository.startswith("models--") else path.name


def name_of_file(path: Path) -> str:
    """Name of the model in a GGUF file: the file's without shard number and quantization type.

    A drafter's file begins with a mark and the name of its target; the name of a drafter ends with one.
    """
    name = split_type(stem(path.name))[0]
    return name.removeprefix(DRAFTER) + identity.DRAFTER if is_drafter(name) else name
