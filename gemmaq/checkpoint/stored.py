"""The arrays in the weight files of a folder, under names without wrappers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gemmaq.checkpoint.weight_files import Choice, choose
from gemmaq.checkpoint.weight_sets import PICKLED, WeightSet, is_weight_file, read_index
from gemmaq.errors import InputError, NotFoundError
from gemmaq.files import safetensors_header, torch_file
from gemmaq.files.safetensors_header import Entry
from gemmaq.files.span import FileSpan, Reader
from gemmaq.models.stored_names import bare, is_adapter, is_head, unwrapped, wrapping

Arrays = dict[str, tuple[FileSpan, Entry]]
"""Name -> file and header entry; the entry has the name as it is in the file."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What the weight files of a folder hold.

    Attributes:
        arrays: Every array by its name without wrappers.
        notes: What a user should know of the files and names, a sentence each.
        error: What to say if a tensor is missing, because a file is; None where none is.
    """

    arrays: Arrays
    notes: tuple[str, ...]
    error: NotFoundError | None = None


@dataclass(slots=True)
class FolderShelf:
    """The weight files of a folder."""

    place: Path
    most_samples: int = 1 << 20
    _headers: dict[str, list[Entry]] = field(default_factory=dict)

    @property
    def present(self) -> list[str]:
        """Names of its weight files and indexes."""
        try:
            return sorted(path.name for path in self.place.iterdir() if is_weight_file(path.name) and path.is_file())
        except OSError as error:
            raise InputError(f"cannot be read: {error.strerror}", path=self.place) from error

    def index(self, name: str, /) -> Mapping[str, str]:
        """An index: tensor -> file."""
        return read_index(self.place / name)

    def header(self, name: str, /) -> Sequence[Entry]:
        """The arrays of a weight file."""
        if name not in self._headers:
            self._headers[name] = header(FileSpan.of(self.place / name))
        return self._headers[name]

    def read(self, wanted: Sequence[tuple[str, int, int]], /) -> list[bytes]:
        """Bytes of files, for each name, offset and size."""
        with Reader() as reader:
            return [bytes(reader.bytes(FileSpan.of(self.place / name), at, size)) for name, at, size in wanted]

    def lacks(self, found: WeightSet, /) -> NotFoundError:
        """The error that files of a set are missing."""
        why = "the index names it" if found.is_indexed else f"a shard of {_one_of(found)}"
        more = len(found.missing) - 1
        if more:
            why += f"; {more} more {'are' if more > 1 else 'is'} missing"
        hint = f"download the missing shard{'s' if more else ''}"
        return NotFoundError(f"does not exist, {why}", hint, path=self.place / found.missing[0])

    def empty(self) -> NotFoundError:
        """The error that there are no weights."""
        return NotFoundError("holds neither .safetensors files nor pytorch_model.bin", path=self.place)


def _one_of(found: WeightSet) -> str:
    """A file of a set that is there."""
    return next(name for name in found.files if name not in found.missing)


def header(span: FileSpan) -> list[Entry]:
    """The arrays of a weight file.

    Raises:
        InputError: It is unusable.
    """
    return torch_file.parse(span) if span.name.endswith(PICKLED) else safetensors_header.parse(span)


def arrays_in(folder: Path, wanted: str | None = None) -> Stored:
    """The arrays in the weight files of a folder.

    Headers count: where an index contradicts them, a note says so.

    Args:
        folder: The folder.
        wanted: Weight file that the user chose, see `weight_files.choose`.

    Raises:
        NotFoundError: There are no weights, or shards are missing.
        InputError: A file is unusable, two hold different weights, or an adapter has not been merged.
    """
    shelf = FolderShelf(folder)
    choice = choose(shelf, wanted)
    held: dict[str, dict[str, Entry]] = {}
    for file in choice.files:
        for entry in shelf.header(file):
            held.setdefault(entry.name, {})[file] = entry
    spans = {file: FileSpan.of(folder / file) for file in choice.files}
    found: Arrays = {}
    for name, files in held.items():
        file = choice.places.get(name, "")
        if file not in files:
            file = next(iter(files))
            if len(files) > 1 and not _alike(shelf, files):
                raise InputError("is in two files, and no index says which one counts", path=folder, tensor=name)
        plain = unwrapped(name)
        if plain in found:
            raise InputError(f"holds {found[plain][1].name} and {name}, two tensors of one name", path=folder)
        found[plain] = (spans[file], files[file])
    adapter = next((name for name in held if is_adapter(name)), None)
    if adapter is not None:
        raise InputError(
            "belongs to an adapter that is not merged into the weights",
            "merge it first: merge_and_unload() of PEFT, then save_pretrained()",
            path=folder,
            tensor=adapter,
        )
    return Stored(found, (*choice.notes, *_contradictions(choice, held), *_wrappers(held)), choice.error)


def _alike(shelf: FolderShelf, files: Mapping[str, Entry]) -> bool:
    """Whether a tensor is the same in all files that hold it."""
    first, *others = files.values()
    if any((entry.dtype, entry.shape) != (first.dtype, first.shape) for entry in others):
        return False
    wanted = [(file, entry.offset, entry.nbytes) for file, entry in files.items()]
    return len(set(shelf.read(wanted))) == 1


def _contradictions(choice: Choice, held: Mapping[str, Mapping[str, Entry]]) -> tuple[str, ...]:
    """Notes on what an index says and headers do not."""
    places, notes = choice.places, []
    moved = [name for name, file in places.items() if name in held and file not in held[name]]
    if moved:
        at = next(iter(held[moved[0]]))
        notes.append(f"the index places {_some(moved)} in {places[moved[0]]}, but it is in {at}: the headers count")
    inner = {bare(name) for name in held}
    lost = [name for name in places if name not in held]
    renamed = [name for name in lost if bare(name) in inner]
    if renamed:
        there = next(name for name in held if bare(name) == bare(renamed[0]))
        notes.append(f"the index names {_some(renamed)}, but the files have {there}: the headers count")
    absent = [name for name in lost if bare(name) not in inner]
    if absent:
        head = " (the embedding is the head)" if all(map(is_head, absent)) else ""
        notes.append(f"the index names {_some(absent)}, which no file holds{head}: the headers count")
    unnamed = [name for name in held if places and name not in places and not renamed]
    if unnamed:
        notes.append(f"the index does not name {_some(unnamed)}, which the files hold: the headers count")
    return tuple(notes)


def _wrappers(names: Mapping[str, object]) -> tuple[str, ...]:
    """A note on the wrappers that names are read without."""
    found = dict.fromkeys(wrapper for name in names for wrapper in wrapping(name))
    return (f"tensor names are read without {', '.join(found)}: wrappers of training tools",) if found else ()


def _some(names: Sequence[str]) -> str:
    """The first name, and how many there are besides."""
    more = len(names) - 1
    return names[0] if not more else f"{names[0]} and {more} more tensor{'s' if more > 1 else ''}"
