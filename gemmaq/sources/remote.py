"""Opens a model on the Hub by its headers alone: a few megabytes of traffic, whatever the model weighs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from gemmaq.checkpoint import Checkpoint
from gemmaq.checkpoint.folder import open_folder
from gemmaq.checkpoint.gguf_checkpoint import open_gguf
from gemmaq.checkpoint.schemes import settings
from gemmaq.checkpoint.tokenizer import Tokenizer, TokenizerFiles, files_of
from gemmaq.errors import GemmaqError, InputError
from gemmaq.files import gguf_reader
from gemmaq.hub import Listing, Ref, RemoteFile, client
from gemmaq.models.config import TextConfig
from gemmaq.progress import ignore
from gemmaq.sources import adapters, gguf_repository, headers, listed_weights, pull, select
from gemmaq.sources.companions import Wish, refuse, refuse_weights, with_companions
from gemmaq.sources.names import name_of_file

_PARALLEL = 8
"""Files that are read at the same time."""
_NEEDED = ("config.json", "generation_config.json", "README.md", *settings.FILES)
"""Small files that describe a model."""


def open_repository(ref: Ref, wish: Wish, open_base: adapters.OpenBase, *, tokenizer: bool = False) -> Checkpoint:
    """Open the model in a repository, without its weights.

    Headers are written into sparse temporary files of the real sizes, which are read like any others.

    Args:
        ref: The repository.
        wish: What the user wants of the files beside a GGUF model, and of the base model of an adapter.
        open_base: Opens the base model of an adapter.
        tokenizer: Whether to download its tokenizer into the cache.

    Raises:
        GemmaqError: The repository cannot be read, or holds no model that gemmaq can read.
    """
    listing = client.listing(ref)
    with tempfile.TemporaryDirectory(prefix="gemmaq-") as temporary:
        folder = Path(temporary)
        try:
            if select.is_adapter(listing):
                return _open_adapter(listing, folder, wish, open_base)
            adapters.refuse(wish, ref)
            if select.is_gguf(listing):
                refuse_weights(wish, ref)
                return replace(_open_gguf(listing, folder, wish), weights_here=False)
            refuse(wish, ref)
            notes = _read_headers(listing, folder, wish.weights)
            checkpoint = open_folder(folder, ref.repo.rpartition("/")[2], str(ref), wish.weights)
        except GemmaqError as error:
            raise error.relative_to(folder, str(ref)) from error
    files = TokenizerFiles(_no_tokenizer)
    if tokenizer:
        small = tuple(select.small(listing))
        snapshot, _ = pull.download(pull.Download(listing, small, small), ignore)
        files = files_of(snapshot, checkpoint.family)
    return replace(checkpoint, tokenizer_files=files, weights_here=False, notes=(*notes, *checkpoint.notes))


def _open_adapter(listing: Listing, folder: Path, wish: Wish, open_base: adapters.OpenBase) -> Checkpoint:
    small = tuple(select.small(listing))
    snapshot, _ = pull.download(pull.Download(listing, small, small), ignore)
    for file in small:
        (folder / file.path).symlink_to((snapshot / file.path).resolve())
    _in_parallel(lambda file: headers.sparse(listing, file, folder), select.adapter_weights(listing))
    model = adapters.open_adapter(folder, listing.ref.repo.rpartition("/")[2], str(listing.ref), wish, open_base)
    if any(path.parent == folder for path in model.tokenizer_files.verbatim.values()):
        model = replace(model, tokenizer_files=files_of(snapshot, model.family))
    return replace(model, weights_here=False)


def _open_gguf(listing: Listing, folder: Path, wish: Wish) -> Checkpoint:
    open_file = headers.opener(listing, folder)
    shards = select.gguf(listing)
    files = [gguf_reader.parse(open_file(file)) for file in shards]
    model = open_gguf(files, name_of_file(Path(shards[0].path)), str(listing.ref))
    surroundings = gguf_repository.surroundings(listing, shards[0], open_file)
    return with_companions(model, files[0], surroundings, gguf_repository.resolved(listing, wish, open_file))


def _read_headers(listing: Listing, folder: Path, wanted: str | None) -> tuple[str, ...]:
    """Read small files that describe a model, and the headers of its weights, into a folder; notes on the choice."""
    small = [file for file in select.small(listing) if file.path in _NEEDED]
    _in_parallel(
        lambda file: (folder / file.path).write_bytes(client.read(listing, file, start=0, end=file.size)), small
    )
    with tempfile.TemporaryDirectory(prefix="gemmaq-") as looked_at:
        shelf = listed_weights.online(listing, Path(looked_at))
        choice = listed_weights.chosen(shelf, wanted)
        if choice.index is not None:
            (folder / choice.index).write_bytes(shelf.index_path(choice.index).read_bytes())
    _in_parallel(lambda file: headers.sparse(listing, file, folder), listed_weights.files(shelf, choice))
    return choice.notes


def _in_parallel(work: Callable[[RemoteFile], object], files: Sequence[RemoteFile]) -> None:
    with ThreadPoolExecutor(_PARALLEL) as pool:
        list(pool.map(work, files))


def _no_tokenizer(config: TextConfig) -> Tokenizer:
    raise InputError("the tokenizer was not downloaded")
