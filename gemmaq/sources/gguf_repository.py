"""The files of a GGUF model in a repository: the model, and what belongs to it of the files beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from gemmaq.errors import NotFoundError
from gemmaq.files import gguf_reader
from gemmaq.files.names import all_shards, is_first
from gemmaq.files.span import FileSpan
from gemmaq.hub import Listing, RemoteFile
from gemmaq.sources import select
from gemmaq.sources.companions import Beside, Kind, Surroundings, Wish, find

Opener = Callable[[RemoteFile], FileSpan]
"""Gives a file of a repository, at least its header."""


def needed(
    listing: Listing, exclude: Sequence[str], open_file: Opener, wish: Wish
) -> tuple[list[RemoteFile], tuple[str, ...]]:
    """Files of a GGUF model that a conversion needs, less excluded ones, and notes on those beside it.

    Raises:
        InputError: Several files may belong to the model.
    """
    model = select.gguf(listing, exclude)
    files = [*model, *(file for file in select.small(listing) if file.path == "README.md")]
    named = _named(listing, wish)
    files += [named] if named is not None else []
    around = surroundings(listing, model[0], open_file, exclude)
    if not any(around(kind).files for kind in wish.needs):
        return select.filtered(files, (), exclude), ()
    found, notes = find(gguf_reader.parse(open_file(model[0])), around, wish, listing.ref)
    paths = [part for name in found.values() for part in all_shards(name)]
    files += [file for file in listing.files if file.path in paths]
    return select.filtered(files, (), exclude), notes


def surroundings(listing: Listing, model: RemoteFile, open_file: Opener, exclude: Sequence[str] = ()) -> Surroundings:
    """The files beside a GGUF model in a repository, less excluded ones."""

    def beside(kind: Kind) -> Beside:
        models, found = select.beside(listing, model.path, kind.is_one)
        files = {file.path: file for file in select.filtered(found, (), exclude)}
        openers = {
            path: tuple(partial(open_file, files[part]) for part in all_shards(path) if part in files)
            for path in files
            if is_first(path)
        }
        return Beside(model.path, tuple(models), openers)

    return beside


def resolved(listing: Listing, wish: Wish, open_file: Opener) -> Wish:
    """A wish whose mmproj file is a local one.

    Raises:
        NotFoundError: The file that the user named is neither there nor in the repository.
    """
    file = _named(listing, wish)
    return wish if file is None else replace(wish, mmproj=open_file(file).paths[0])


def _named(listing: Listing, wish: Wish) -> RemoteFile | None:
    """The file of a repository that the user named as mmproj file; None for a local one, or none."""
    if wish.mmproj is None or wish.mmproj.exists():
        return None
    file = listing.find(wish.mmproj.as_posix())
    if file is None:
        raise NotFoundError(f"is no local file, and {listing.ref.repo} has no such file", path=wish.mmproj)
    return file
