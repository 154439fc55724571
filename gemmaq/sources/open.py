"""From what a user types to a Checkpoint."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gemmaq.checkpoint import Checkpoint
from gemmaq.checkpoint.folder import open_folder
from gemmaq.checkpoint.weight_sets import is_weight_file
from gemmaq.errors import InputError
from gemmaq.files.gguf_reader import is_gguf
from gemmaq.files.malformed import refused
from gemmaq.files.span import FileSpan
from gemmaq.hub import Ref, RemoteFile
from gemmaq.sources import adapters
from gemmaq.sources.companions import ANY, Wish, refuse, refuse_weights
from gemmaq.sources.local import open_gguf_file, open_gguf_folder, open_sample
from gemmaq.sources.names import missing, name_of_folder, repository, snapshot_in

if TYPE_CHECKING:
    from gemmaq.progress import ProgressCallback
    from gemmaq.sources.pull import Download


def open_source(source: str, wish: Wish = ANY, *, tokenizer: bool = False) -> Checkpoint:
    """Open a local folder, a GGUF file (any shard of a split one), the sample, or the headers of a repository.

    Args:
        source: Path or repository as the user typed it; a path that exists wins.
        wish: What the user wants of the files beside a GGUF model.
        tokenizer: Whether to download the tokenizer of a repository, too.

    Raises:
        NotFoundError: There is no such file, folder or repository.
        InputError: It is not a model that gemmaq can read.
        AuthError: The repository is gated or private.
        NetworkError: The Hub cannot be reached.
    """
    with refused(source):
        return _opened(source, wish, tokenizer)


def _opened(source: str, wish: Wish, tokenizer: bool) -> Checkpoint:
    """What `open_source` opens, without the guard."""

    def open_base(base: str) -> Checkpoint:
        return open_source(base, replace(wish, base=None, alone=False), tokenizer=tokenizer)

    path = Path(os.path.expanduser(source))
    if os.path.isdir(path) and adapters.is_adapter(path):
        return adapters.open_adapter(path, name_of_folder(path.resolve()), source, wish, open_base)
    ref = repository(source)
    if ref is None:
        adapters.refuse(wish, source)
    if os.path.isdir(path):
        path = snapshot_in(path)
        if not (path / "config.json").is_file():
            refuse_weights(wish, source)
            return open_gguf_folder(path, source, wish)
        refuse(wish, source)
        return open_folder(path, name_of_folder(path.resolve()), source, _name_in(path, wish.weights))
    if os.path.isfile(path):
        if path.suffix == ".gguf" or is_gguf(path):
            refuse_weights(wish, source)
            return open_gguf_file(path, source, wish)
        if is_weight_file(path.name) and (path.parent / "config.json").is_file():
            refuse(wish, source)
            refuse_weights(wish, source)
            return open_folder(path.parent, name_of_folder(path.parent.resolve()), source, path.name)
        FileSpan.of(path)  # names a pointer of Git LFS
        raise InputError("is neither a model folder nor a GGUF file", "name the folder with config.json", path=source)
    if os.path.exists(path):
        FileSpan.of(path)  # names what is neither a file nor a folder
    if source.startswith("sample:"):
        refuse(wish, source)
        refuse_weights(wish, source)
        return open_sample(source)
    if ref is None:
        raise missing(source)
    from gemmaq.hub import client

    if client.is_offline():
        return open_cached(ref, wish, open_base)
    from gemmaq.sources.remote import open_repository

    return open_repository(ref, wish, open_base, tokenizer=tokenizer)


def _name_in(folder: Path, weights: str | None) -> str | None:
    """The name in a folder of a weight file, which the user may also have given with the folder before it."""
    if weights is None:
        return None
    given = Path(os.path.expanduser(weights))
    return given.name if given.exists() and given.parent.resolve() == folder.resolve() else weights


def open_with_weights(
    source: str, show: Callable[[Download], AbstractContextManager[ProgressCallback]], wish: Wish = ANY
) -> Checkpoint:
    """Open a source whose weights will be read: a repository is downloaded into the cache first.

    Args:
        source: Path or repository as the user typed it.
        show: Called once it is known what to download; gives the callback for progress.
        wish: What the user wants of the files beside a GGUF model.

    Raises:
        GemmaqError: See `open_source` and `pull.fetch`.
    """
    with refused(source):
        return _opened_with_weights(source, show, wish)


def _opened_with_weights(
    source: str, show: Callable[[Download], AbstractContextManager[ProgressCallback]], wish: Wish
) -> Checkpoint:
    """What `open_with_weights` opens, without the guard."""

    def open_base(base: str) -> Checkpoint:
        if wish.alone:
            return open_source(base, replace(wish, base=None, alone=False))
        return open_with_weights(base, show, replace(wish, base=None, alone=False))

    path = Path(os.path.expanduser(source))
    if os.path.isdir(path) and adapters.is_adapter(path):
        return adapters.open_adapter(path, name_of_folder(path.resolve()), source, wish, open_base)
    ref = repository(source)
    if ref is None:
        return open_source(source, wish)
    from gemmaq.hub import client
    from gemmaq.sources import pull

    if not client.is_offline():
        pull.fetch(ref, show, wish)
    return open_cached(ref, wish, open_base)


def open_cached(ref: Ref, wish: Wish, open_base: adapters.OpenBase) -> Checkpoint:
    """Open a repository's snapshot in the cache; `open_base` opens the base model of an adapter.

    Raises:
        NetworkError: The cache lacks the snapshot, or a file of it.
        InputError: It is not a model that gemmaq can read.
    """
    from gemmaq.sources import gguf_repository, pull, select

    listing = pull.plan_cached(ref, wish).listing
    folder = pull.cached(ref)
    if select.is_adapter(listing):
        return adapters.open_adapter(folder, name_of_folder(folder), str(ref), wish, open_base)
    adapters.refuse(wish, ref)
    if not select.is_gguf(listing):
        return open_folder(folder, name_of_folder(folder), str(ref), wish.weights)
    refuse_weights(wish, ref)

    def open_file(file: RemoteFile) -> FileSpan:
        return FileSpan.of(folder / file.path)

    model = select.gguf(listing)[0]
    surroundings = gguf_repository.surroundings(listing, model, open_file)
    wish = gguf_repository.resolved(listing, wish, open_file)
    return open_gguf_file(folder / model.path, str(ref), wish, surroundings)
