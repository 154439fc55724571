"""Opens a model on the Hub by its headers alone: a few megabytes of traffic, whatever the model weighs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

from gemmaq.checkpoint import Checkpoint
from gemmaq.checkpoint.folder import open_folder, weight_map
from gemmaq.checkpoint.gguf_checkpoint import open_gguf
from gemmaq.checkpoint.tokenizer import VERBATIM, Tokenizer, TokenizerFiles, from_folder
from gemmaq.errors import GemmaqError, InputError
from gemmaq.files import gguf_reader
from gemmaq.files.names import is_mmproj
from gemmaq.files.span import FileSpan
from gemmaq.hub import Listing, Ref, RemoteFile, client
from gemmaq.models.config import TextConfig
from gemmaq.progress import ignore
from gemmaq.sources import pull, select
from gemmaq.sources.names import name_of_file

_PARALLEL = 8
"""Files that are read at the same time."""
_HEADER = 1 << 18
_VOCABULARY_HEADER = 1 << 23
"""Bytes to read first: most headers fit, and in the second number a GGUF header with a vocabulary (first shard)."""
_MAX_HEADER = 1 << 27
_NEEDED = ("config.json", "generation_config.json", "README.md", select.INDEX)
"""Small files that describe a model."""


def open_repository(ref: Ref, *, tokenizer: bool = False) -> Checkpoint:
    """Open the model in a repository, without its weights.

    Headers are written into sparse temporary files of the real sizes, which are read like any others.

    Args:
        ref: The repository.
        tokenizer: Whether to download its tokenizer into the cache.

    Raises:
        GemmaqError: The repository cannot be read, or holds no model that gemmaq can read.
    """
    listing = client.listing(ref)
    with tempfile.TemporaryDirectory(prefix="gemmaq-") as temporary:
        folder = Path(temporary)
        try:
            if select.is_gguf(listing):
                return replace(_open_gguf(listing, folder), weights_here=False)
            _read_headers(listing, folder)
            checkpoint = open_folder(folder, ref.repo.rpartition("/")[2], str(ref))
        except GemmaqError as error:
            raise error.relative_to(folder, str(ref)) from error
    files = TokenizerFiles(_no_tokenizer)
    if tokenizer:
        small = tuple(select.small(listing))
        snapshot, _ = pull.download(pull.Download(listing, small, small), ignore)
        verbatim = (snapshot / name for name in VERBATIM)
        load = partial(from_folder, snapshot, checkpoint.family)
        files = TokenizerFiles(load, tuple(path for path in verbatim if path.is_file()))
    return replace(checkpoint, tokenizer_files=files, weights_here=False)


def _open_gguf(listing: Listing, folder: Path) -> Checkpoint:
    paths = [
        _sparse(listing, file, folder, first=_HEADER if number else _VOCABULARY_HEADER)
        for number, file in enumerate(select.gguf(listing))
    ]
    models = [FileSpan.of(path) for path in paths if not is_mmproj(path.name)]
    projectors = [FileSpan.of(path) for path in paths if is_mmproj(path.name)]
    return open_gguf(models, name_of_file(models[0].paths[0]), str(listing.ref), projectors)


def _read_headers(listing: Listing, folder: Path) -> None:
    """Read the small files that describe a model, and the headers of its weights, into a folder."""
    small = [file for file in select.small(listing) if file.path in _NEEDED]
    _in_parallel(
        lambda file: (folder / file.path).write_bytes(client.read(listing, file, start=0, end=file.size)), small
    )
    shards = sorted(set(weight_map(folder, complete=False).values())) if listing.find(select.INDEX) else None
    _in_parallel(lambda file: _sparse(listing, file, folder), select.weights(listing, shards))


def _in_parallel(work: Callable[[RemoteFile], object], files: Sequence[RemoteFile]) -> None:
    with ThreadPoolExecutor(_PARALLEL) as pool:
        list(pool.map(work, files))


def _sparse(listing: Listing, file: RemoteFile, folder: Path, *, first: int = _HEADER) -> Path:
    """Create a file of the right size that holds only the header; `first` bytes of it are read at first."""
    path = folder / file.path.rpartition("/")[2]
    with path.open("wb") as out:
        out.truncate(file.size)
    if path.suffix == ".gguf":
        size = 0
        while size < min(file.size, _MAX_HEADER):
            end = min(file.size, max(first, 2 * size))
            _write_at(path, size, client.read(listing, file, start=size, end=end))
            size = end
            if _has_header(path, size):
                break
        return path
    header = client.read(listing, file, start=0, end=min(file.size, first))
    _write_at(path, 0, header)
    end = min(8 + int.from_bytes(header[:8], "little"), file.size)
    if len(header) < end <= _MAX_HEADER:
        _write_at(path, len(header), client.read(listing, file, start=len(header), end=end))
    return path


def _write_at(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as out:
        out.seek(offset)
        out.write(data)


def _has_header(path: Path, size: int) -> bool:
    """Whether the first `size` bytes of a GGUF file hold its whole header, or one that is broken anyway."""
    try:
        gguf_reader.parse(FileSpan((path,), (0,), size))
    except gguf_reader.HeaderCut:
        return False
    except InputError:
        return True
    return True


def _no_tokenizer(config: TextConfig) -> Tokenizer:
    raise InputError("the tokenizer was not downloaded")
