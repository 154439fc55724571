"""A model on the Hub opened by its headers alone: a few megabytes of traffic whatever it weighs."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
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

_AT_A_TIME = 8
_HEAD = 1 << 18
_VOCABULARY_HEAD = 1 << 23
"""Bytes that hold most headers, and that of a GGUF file with Gemma's vocabulary: the first of several shards."""
_MAX_HEAD = 1 << 27
_NEEDED = ("config.json", "generation_config.json", "README.md", select.INDEX)


def open_repository(ref: Ref, *, tokenizer: bool = False) -> Checkpoint:
    """The model in a repository, without its weights.

    Headers are put into sparse files of the real sizes, which are read like any others and thrown away again.

    Args:
        ref: of the repository.
        tokenizer: whether its tokenizer will be wanted; fetched into the cache.

    Raises:
        GemmaqError: it cannot be had, or is no model that can be read.
    """
    listed = client.listing(ref)
    name = ref.repo.rpartition("/")[2]
    with tempfile.TemporaryDirectory(prefix="gemmaq-") as place:
        folder = Path(place)
        try:
            if select.is_gguf(listed):
                files = select.gguf(listed)
                paths = [
                    _sparse(listed, file, folder, _HEAD if at else _VOCABULARY_HEAD) for at, file in enumerate(files)
                ]
                models = [FileSpan.of(path) for path in paths if not is_mmproj(path.name)]
                projectors = [FileSpan.of(path) for path in paths if is_mmproj(path.name)]
                found = open_gguf(models, name_of_file(models[0].paths[0]), str(ref), projectors)
                return replace(found, weights_here=False)
            _fetch(listed, folder)
            found = open_folder(folder, name, str(ref))
        except GemmaqError as error:
            message = error.message.replace(f"{folder}/", f"{ref}/").replace(str(folder), str(ref))
            raise type(error)(message, error.hint) from error
    files_of = TokenizerFiles(_left_there)
    if tokenizer:
        wanted = select.small(listed)
        snapshot, _ = pull.download(pull.Download(listed, tuple(wanted), tuple(wanted)), ignore)
        verbatim = (snapshot / name for name in VERBATIM)
        files_of = TokenizerFiles(
            partial(from_folder, snapshot, found.family), tuple(path for path in verbatim if path.is_file())
        )
    return replace(found, tokenizer_files=files_of, weights_here=False)


def _fetch(listed: Listing, folder: Path) -> None:
    """The small files that say what a model is, and the headers of its weights."""
    small = [file for file in select.small(listed) if file.path in _NEEDED]
    _each(lambda file: (folder / file.path).write_bytes(client.read(listed, file, 0, file.size)), small)
    shards = sorted(set(weight_map(folder, complete=False).values())) if listed.find(select.INDEX) else None
    _each(lambda file: _sparse(listed, file, folder), select.weights(listed, shards))


def _each(work: object, files: Sequence[RemoteFile]) -> None:
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        list(pool.map(work, files))  # type: ignore[arg-type]


def _sparse(listed: Listing, file: RemoteFile, folder: Path, first: int = _HEAD) -> Path:
    """A file of the right size that holds only its header, of which so much is read at first."""
    path = folder / file.path.rpartition("/")[2]
    with path.open("wb") as out:
        out.truncate(file.size)
    if path.suffix == ".gguf":
        have = 0
        while have < min(file.size, _MAX_HEAD):
            end = min(file.size, max(first, 2 * have))
            _put(path, have, client.read(listed, file, have, end))
            have = end
            if _has_header(path, have):
                break
        return path
    head = client.read(listed, file, 0, min(file.size, first))
    _put(path, 0, head)
    end = min(8 + int.from_bytes(head[:8], "little"), file.size)
    if len(head) < end <= _MAX_HEAD:
        _put(path, len(head), client.read(listed, file, len(head), end))
    return path


def _put(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as out:
        out.seek(offset)
        out.write(data)


def _has_header(path: Path, size: int) -> bool:
    """Whether the first `size` bytes of a GGUF file hold all of its header."""
    try:
        gguf_reader.parse(FileSpan((path,), (0,), size))
    except gguf_reader.HeaderCut:
        return False
    except InputError:
        return True
    return True


def _left_there(config: TextConfig) -> Tokenizer:
    raise InputError("the tokenizer was not fetched")
