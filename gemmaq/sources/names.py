"""Names of models and repositories, from what a user types."""

from __future__ import annotations

import os
import re
from pathlib import Path

from gemmaq.checkpoint.gguf_checkpoint import SHARD
from gemmaq.hub import Ref, parse

_QUANT_SUFFIX = re.compile(r"[-._](i?q\d(_\w+)*|b?f16|f32|fp16)$", re.IGNORECASE)


def repository(source: str) -> Ref | None:
    """The repository a source means, None if it is a path that exists or no repository's name."""
    return None if os.path.exists(os.path.expanduser(source)) else parse(source)


def name_of_folder(path: Path) -> str:
    """The folder's name; in the Hub's cache, that of the repository it is a snapshot of."""
    repository = path.parents[1].name if path.parent.name == "snapshots" else ""
    return repository.rpartition("--")[2] if repository.startswith("models--") else path.name


def name_of_file(path: Path) -> str:
    """The model's name from its file's: without shard number and type."""
    found = SHARD.fullmatch(path.name)
    return _QUANT_SUFFIX.sub("", found["stem"] if found else path.stem)
