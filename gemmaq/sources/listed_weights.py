"""Which weight files of a repository a conversion needs, by its listing, its index and, in doubt, their headers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from gemmaq.checkpoint import stored
from gemmaq.checkpoint.weight_files import Choice, choose
from gemmaq.checkpoint.weight_sets import INDEXES, WeightSet, is_weight_file, read_index
from gemmaq.errors import NotFoundError
from gemmaq.files import names
from gemmaq.files.safetensors_header import Entry
from gemmaq.files.span import FileSpan, Reader
from gemmaq.hub import Listing, RemoteFile, cache, client
from gemmaq.sources import headers
from gemmaq.sources.select import matches

_PARALLEL = 8
"""Samples that are read at the same time."""
_SAMPLES = 12
"""Arrays that are compared of two sets in a repository, each by a few short reads."""


@dataclass(slots=True)
class ListedShelf:
    """The weight files of a repository.

    Attributes:
        listing: Its files.
        open_file: Gives a file with at least its header.
        open_index: Gives the path of a local copy of an index.
        part: Bytes of a file from an offset on.
        exclude: Patterns of files that may be missing and are not wanted.
    """

    listing: Listing
    open_file: Callable[[RemoteFile], FileSpan]
    open_index: Callable[[RemoteFile], Path]
    part: Callable[[RemoteFile, int, int], bytes]
    exclude: Sequence[str] = ()
    most_samples: int = _SAMPLES
    _headers: dict[str, list[Entry]] = field(default_factory=dict)

    @property
    def place(self) -> object:
        """The repository, as the user named it."""
        return self.listing.ref

    @property
    def present(self) -> set[str]:
        """Names of the weight files and indexes at its top; excluded ones count as there if others of their set are."""
        found = {file.path for file in self.listing.files if "/" not in file.path and is_weight_file(file.path)}
        wanted = {name for name in found if not matches(name, self.exclude)}
        if not self.exclude:
            return wanted
        for name in sorted(wanted):
            others = self.index(name).values() if name in INDEXES else names.all_shards(name)
            excluded = {other for other in others if matches(other, self.exclude)}
            if name in INDEXES and excluded.issuperset(others):
                wanted.discard(name)
            else:
                wanted |= excluded
        return wanted

    def index(self, name: str, /) -> Mapping[str, str]:
        """An index: tensor -> file."""
        return read_index(self.index_path(name))

    def index_path(self, name: str) -> Path:
        """A local copy of an index."""
        return self.open_index(self._file(name))

    def header(self, name: str, /) -> Sequence[Entry]:
        """The arrays of a weight file; none of one that is missing because the user excluded it."""
        if name not in self._headers:
            file = self.listing.find(name)
            self._headers[name] = stored.header(self.open_file(file)) if file is not None else []
        return self._headers[name]

    def read(self, wanted: Sequence[tuple[str, int, int]], /) -> list[bytes]:
        """Bytes of files, for each name, offset and size."""
        with ThreadPoolExecutor(_PARALLEL) as pool:
            return list(pool.map(lambda each: self.part(self._file(each[0]), each[1], each[2]), wanted))

    def lacks(self, found: WeightSet, /) -> NotFoundError:
        """The error that files of a set are missing."""
        more = f" and {len(found.missing) - 1} more files" if len(found.missing) > 1 else ""
        why = ", which its index names" if found.is_indexed else ""
        return NotFoundError(f"has no file {found.missing[0]}{more}{why}", path=self.listing.ref)

    def empty(self) -> NotFoundError:
        """The error that there are no weights, which names the endings of the repository's large files."""
        endings = sorted({file.path.rpartition(".")[2] for file in self.listing.files if file.size > 1 << 26})
        hint = f"its large files are .{', .'.join(endings)}" if endings else None
        return NotFoundError("holds neither safetensors nor GGUF files", hint, path=self.listing.ref)

    def _file(self, name: str) -> RemoteFile:
        return next(file for file in self.listing.files if file.path == name)


def online(listing: Listing, folder: Path, exclude: Sequence[str] = ()) -> ListedShelf:
    """The weight files of a repository on the Hub; what is read of them is put into a folder."""
    root = client.cache_folder(listing.ref.repo)

    def open_index(file: RemoteFile) -> Path:
        if cache.held(root, listing, file):
            return cache.snapshot(root, listing.commit) / file.path
        path = folder / file.path
        if not path.exists():
            path.write_bytes(client.read(listing, file, start=0, end=file.size))
        return path

    def part(file: RemoteFile, offset: int, size: int) -> bytes:
        if cache.held(root, listing, file):
            return _read(cache.snapshot(root, listing.commit) / file.path, offset, size)
        return client.read(listing, file, start=offset, end=offset + size)

    return ListedShelf(listing, headers.opener(listing, folder), open_index, part, exclude)


def cached(listing: Listing, folder: Path, exclude: Sequence[str] = ()) -> ListedShelf:
    """The weight files of a snapshot in the cache."""
    return ListedShelf(
        listing,
        lambda file: FileSpan.of(folder / file.path),
        lambda file: folder / file.path,
        lambda file, offset, size: _read(folder / file.path, offset, size),
        exclude,
    )


def _read(path: Path, offset: int, size: int) -> bytes:
    with Reader() as reader:
        return bytes(reader.bytes(FileSpan.of(path), offset, size))


def chosen(shelf: ListedShelf, wanted: str | None = None) -> Choice:
    """The weight files of a repository that a conversion needs; none if the user excludes all.

    Raises:
        NotFoundError: There are none, or one that the index or a shard's name counts on is missing.
        InputError: Two sets hold different weights, or a header is unusable.
    """
    if not shelf.present and matches("model.safetensors", shelf.exclude):
        return Choice()
    return choose(shelf, wanted)


def files(shelf: ListedShelf, choice: Choice) -> list[RemoteFile]:
    """The files of a choice, less excluded ones."""
    found = (shelf.listing.find(name) for name in choice.files if not matches(name, shelf.exclude))
    return [file for file in found if file is not None]
