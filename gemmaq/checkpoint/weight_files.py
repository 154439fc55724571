"""Chooses the weight files of a folder or repository by their headers; a choice between several is never silent."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from gemmaq.checkpoint.weight_sets import WHOLE, WeightSet, is_usual, named, sets
from gemmaq.errors import InputError, NotFoundError
from gemmaq.files.safetensors_header import Entry
from gemmaq.models.stored_names import bare, is_head

_SMALL = 1 << 16
_WINDOW = 1 << 12
"""Bytes of an array that is compared as a whole, and of each sample of a larger one."""

Arrays = Mapping[str, tuple[str, Entry]]
"""Name of a tensor without wrappers and prefix -> its file and its entry in the header there."""


class Shelf(Protocol):
    """Where weight files lie: a folder, or a repository of which only headers and samples are read."""

    @property
    def place(self) -> object:
        """What messages call it."""

    @property
    def present(self) -> Collection[str]:
        """Names of its weight files and indexes."""

    @property
    def most_samples(self) -> int:
        """Number of arrays that are compared of two sets at most."""

    def index(self, name: str, /) -> Mapping[str, str]:
        """An index: tensor -> file."""

    def header(self, name: str, /) -> Sequence[Entry]:
        """The arrays of a weight file."""

    def read(self, wanted: Sequence[tuple[str, int, int]], /) -> Sequence[bytes]:
        """Bytes of files, for each name, offset and size."""

    def lacks(self, found: WeightSet, /) -> NotFoundError:
        """The error that files of a set are missing."""

    def empty(self) -> NotFoundError:
        """The error that there are no weights."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The files to read.

    Attributes:
        files: Their names.
        index: Name of the index that names the files, None for none.
        places: Tensor -> file by it; empty for none.
        notes: What a user should know of the choice, a sentence each.
        error: What to say if these files lack a tensor, because others that may hold it are missing; None for nothing.
    """

    files: tuple[str, ...] = ()
    index: str | None = None
    places: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    error: NotFoundError | None = None


def choose(shelf: Shelf, wanted: str | None = None) -> Choice:
    """Choose the weight files of a model.

    A set whose files are all there comes before one with missing files. Where an index with all its shards lies beside
    a whole file, or shards without an index beside others, both must hold the same numbers, or the user chooses.

    Args:
        shelf: Where the files lie.
        wanted: The file that the user chose: a whole one, an index or one of several shards. None for no choice.

    Raises:
        NotFoundError: There are no weights, or shards are missing.
        InputError: Two sets hold different weights, or a header is unusable.
    """
    found = sets(shelf.present, shelf.index)
    if wanted is not None:
        return _wanted(shelf, found, wanted)
    usual = [_without_moved(shelf, each) for each in found if is_usual(each)]
    if not usual:
        raise shelf.empty()
    first = next((each for each in usual if not each.missing), None)
    if first is None:
        raise shelf.lacks(usual[0])
    before = usual[: usual.index(first)]
    for stale in before:
        _check_stale(shelf, stale, first)
    notes = [
        f"{each.name} counts on {_some(each.missing)}, which {'is' if len(each.missing) == 1 else 'are'} missing: "
        f"{first.name} is read"
        for each in before
    ]
    error = shelf.lacks(before[0]) if before else None
    rest = [each for each in usual if each is not first and each not in before]
    conventional = first.is_indexed or first.name in WHOLE.values()
    files = list(first.files)
    over = []
    for other in rest:
        if other.missing or other.is_pickled != first.is_pickled or (conventional and not _rivals(first, other)):
            over.append(other.name)
        elif not conventional and not _arrays(shelf, files).keys() & _arrays(shelf, other.files).keys():
            files += other.files
        else:
            _check_same(shelf, first, files, other)
            notes.append(f"{other.name} is not read: it holds the same weights as {first.name}")
    notes += [f"{_some(over)} {'is' if len(over) == 1 else 'are'} not read: {first.name} comes first"] if over else []
    return Choice(tuple(files), first.name if first.is_indexed else None, first.places, tuple(notes), error)


def _rivals(first: WeightSet, other: WeightSet) -> bool:
    """Whether tools disagree which of two sets counts: an index and a whole file, or a whole file and shards."""
    return other.name in WHOLE.values() if first.is_indexed else len(other.files) > 1


def _without_moved(shelf: Shelf, found: WeightSet) -> WeightSet:
    """A set without missing files if all that its index places in them is in the files that are there."""
    there = tuple(name for name in found.files if name not in found.missing)
    if not (found.is_indexed and found.missing and there):
        return found
    held = _arrays(shelf, there).keys()
    moved = all(bare(name) in held for name, file in found.places.items() if file in found.missing)
    return replace(found, files=there, missing=()) if moved else found


def _wanted(shelf: Shelf, found: Sequence[WeightSet], wanted: str) -> Choice:
    """The choice of the user."""
    chosen = named([_without_moved(shelf, each) for each in found], wanted)
    if chosen is None:
        known = ", ".join(each.name for each in found)
        raise NotFoundError(f"has no weight file {wanted}", f"it has {known}" if known else None, path=shelf.place)
    if chosen.missing:
        raise shelf.lacks(chosen)
    return Choice(chosen.files, chosen.name if chosen.is_indexed else None, chosen.places)


def _arrays(shelf: Shelf, files: Sequence[str]) -> Arrays:
    return {bare(entry.name): (name, entry) for name in files for entry in shelf.header(name)}


def _check_stale(shelf: Shelf, stale: WeightSet, first: WeightSet) -> None:
    """Refuse a set in place of one with missing files if it lacks a tensor of that one.

    Raises:
        NotFoundError: It does.
    """
    held = _arrays(shelf, first.files).keys()
    if stale.is_indexed:
        names = [name for name, file in stale.places.items() if file in stale.missing]
    else:
        names = [entry.name for file in stale.files if file not in stale.missing for entry in shelf.header(file)]
    if any(bare(name) not in held and not is_head(name) for name in names):
        raise shelf.lacks(stale)


def _check_same(shelf: Shelf, first: WeightSet, files: Sequence[str], other: WeightSet) -> None:
    """Refuse to choose between two sets that hold different weights.

    Raises:
        InputError: They do.
    """
    difference = next(_differences(shelf, _arrays(shelf, files), _arrays(shelf, other.files)), None)
    if difference is None:
        return
    raise InputError(
        f"holds two sets of weights that differ, {first.name} and {other.name}: {difference}",
        f"choose one with --weights {first.name} or --weights {other.name}",
        path=shelf.place,
    )


def _differences(shelf: Shelf, ours: Arrays, others: Arrays) -> Iterator[str]:
    """What tells two sets apart, a clause each: tensors that only the second has, shapes, samples of their bytes.

    The first set may hold more than the second.
    """
    for name, (file, entry) in others.items():
        if name not in ours and not is_head(name):
            yield f"tensor {entry.name} is only in {file}"
    common = [(ours[name], place) for name, place in others.items() if name in ours]
    for (_, a), (_, b) in common:
        if (a.dtype, a.shape) != (b.dtype, b.shape):
            yield f"tensor {b.name} is {a.dtype} {list(a.shape)} and {b.dtype} {list(b.shape)}"
    common = [(a, b) for a, b in common if a[1].strides is None and b[1].strides is None]
    step = max(1, -(-len(common) // shelf.most_samples))
    wanted, of = [], []
    for (file, a), (other, b) in common[::step]:
        for at, size in _windows(a.nbytes):
            wanted += [(file, a.offset + at, size), (other, b.offset + at, size)]
            of.append(b.name)
    read = iter(shelf.read(wanted))
    for name in of:
        if next(read) != next(read):
            yield f"tensor {name} differs"


def _windows(nbytes: int) -> list[tuple[int, int]]:
    """Offset and size of the samples of an array of so many bytes."""
    if nbytes <= _SMALL:
        return [(0, nbytes)]
    return [(part * (nbytes - _WINDOW) // 3, _WINDOW) for part in range(4)]


def _some(names: Sequence[str]) -> str:
    """The first name, and how many there are besides."""
    more = len(names) - 1
    return names[0] if not more else f"{names[0]} and {more} more file{'s' if more > 1 else ''}"
