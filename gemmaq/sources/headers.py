"""Headers of weight files on the Hub, read into sparse files of the real sizes, which are read like any others."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache as cache_calls
from pathlib import Path

from gemmaq.checkpoint.weight_sets import PICKLED
from gemmaq.errors import InputError, OutputError
from gemmaq.files import gguf_reader, safetensors_header
from gemmaq.files.names import base, is_first, is_mmproj
from gemmaq.files.span import FileSpan
from gemmaq.hub import Listing, RemoteFile, cache, client

_HEADER = 1 << 18
_VOCABULARY_HEADER = 1 << 23
"""Bytes to read first: most headers fit, and in the second number a GGUF header with a vocabulary (first shard)."""
_PICKLED_END = 1 << 20
"""Bytes at each end of a file of torch.save: the first describe the tensors, the last have the directory."""


def opener(listing: Listing, folder: Path) -> Callable[[RemoteFile], FileSpan]:
    """A function that gives a file with its header: from the cache, else read into a sparse file in `folder`."""
    root = client.cache_folder(listing.ref.repo)

    @cache_calls
    def open_file(file: RemoteFile) -> FileSpan:
        if cache.held(root, listing, file):
            return FileSpan.of(cache.snapshot(root, listing.commit) / file.path)
        return FileSpan.of(sparse(listing, file, folder))

    return open_file


def sparse(listing: Listing, file: RemoteFile, folder: Path) -> Path:
    """Create a file of the right size that holds only the header.

    Raises:
        OutputError: The file system holds no file of that size.
    """
    path = folder / base(file.path)
    try:
        with path.open("wb") as out:
            out.truncate(file.size)
    except OSError as error:
        raise OutputError(f"cannot hold a file of {file.size:,} bytes: {error.strerror}", path=folder) from error
    if path.suffix == ".gguf":
        size, first = 0, _HEADER if is_mmproj(file.path) or not is_first(file.path) else _VOCABULARY_HEADER
        while size < min(file.size, gguf_reader.MAX_HEADER):
            end = min(file.size, max(first, 2 * size))
            _write_at(path, size, client.read(listing, file, start=size, end=end))
            size = end
            if _has_header(path, size):
                break
        return path
    if path.suffix in PICKLED:
        _write_at(path, 0, client.read(listing, file, start=0, end=min(file.size, _PICKLED_END)))
        end = max(_PICKLED_END, file.size - _PICKLED_END)
        if end < file.size:
            _write_at(path, end, client.read(listing, file, start=end, end=file.size))
        return path
    header = client.read(listing, file, start=0, end=min(file.size, _HEADER))
    _write_at(path, 0, header)
    end = min(8 + int.from_bytes(header[:8], "little"), file.size)
    if len(header) < end <= safetensors_header.MAX_HEADER + 8:
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
