"""From what a user types to a Checkpoint."""

from __future__ import annotations

import os
from pathlib import Path

from gemmaq.checkpoint import Checkpoint
from gemmaq.checkpoint.folder import open_folder
from gemmaq.errors import InputError, NotFoundError
from gemmaq.hub import Ref
from gemmaq.sources.local import lonely_gguf, open_gguf_file, open_sample
from gemmaq.sources.names import name_of_folder, repository


def open_source(source: str, tokenizer: bool = False) -> Checkpoint:
    """Open a local folder, a GGUF file (any shard of a split one), the sample, or the headers of a repository.

    Args:
        source: what the user typed; a path that exists wins over a repository of that name.
        tokenizer: whether that of a repository will be wanted.

    Raises:
        NotFoundError: nothing is there.
        InputError: what is there cannot be used.
        AuthError, NetworkError: a repository cannot be reached.
    """
    path = Path(os.path.expanduser(source))
    if os.path.isdir(path):
        if not (path / "config.json").is_file():
            return lonely_gguf(path, source)
        return open_folder(path, name_of_folder(path.resolve()), source)
    if os.path.isfile(path):
        if path.suffix == ".gguf":
            return open_gguf_file(path, source)
        raise InputError(f"{source} is neither a model folder nor a .gguf file", "name the folder with config.json")
    if source.startswith("sample:"):
        return open_sample(source)
    ref = repository(source)
    if ref is None:
        raise NotFoundError(f"{source} does not exist")
    from gemmaq.hub import client

    if client.is_offline():
        return open_snapshot(ref)
    from gemmaq.sources.remote import open_repository

    return open_repository(ref, tokenizer)


def open_snapshot(ref: Ref) -> Checkpoint:
    """Open a repository's snapshot in the cache.

    Raises:
        NetworkError: there is none, or it is not complete.
        InputError: what is there cannot be used.
    """
    from gemmaq.sources import pull, select

    listed = pull.cached_order(ref).listed
    folder = pull.cached(ref)
    if select.is_gguf(listed):
        return open_gguf_file(folder / select.gguf(listed)[0].path, str(ref))
    return open_folder(folder, name_of_folder(folder), str(ref))
