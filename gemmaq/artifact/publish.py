"""The files of an artifact as they are published: checked, with a card, settings for Ollama and checksums."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gemmaq.artifact import card, modelfile, provenance
from gemmaq.artifact.description import Model, of_checkpoint, of_records
from gemmaq.artifact.digests import feed
from gemmaq.artifact.folder import is_hidden, models_in
from gemmaq.artifact.provenance import Provenance
from gemmaq.checkpoint import Checkpoint
from gemmaq.errors import InputError, NotFoundError, VerificationError
from gemmaq.files import sums
from gemmaq.files.names import parts
from gemmaq.files.quoting import shell
from gemmaq.files.whole import read_bytes
from gemmaq.planning.containers import of_checkpoint_format
from gemmaq.progress import Progress, ProgressCallback
from gemmaq.sources.companions import ALL
from gemmaq.sources.open import open_source

_SMALL = 1 << 22
"""Bytes below which git's id of a file is computed, too."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file to publish.

    Attributes:
        path: Path in the repository.
        size: Bytes.
        sha256: Digest in hex.
        oid: git's id of a small file, empty for a large one.
        local: Local file, None if the content is in `data`.
        data: Content of a file that is created for publishing.
    """

    path: str
    size: int
    sha256: str
    oid: str
    local: Path | None = None
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class Room:
    """A folder of the artifact that holds models of one container.

    Attributes:
        prefix: Its path in the artifact with a slash at its end; empty for the artifact's own folder.
        checkpoint: Headers of the first model.
        models: The models as their card describes them.
        records: What its gemmaq.json says of them; none if it has none.
    """

    prefix: str
    checkpoint: Checkpoint
    models: tuple[Model, ...]
    records: tuple[Provenance, ...]


@dataclass(frozen=True, slots=True)
class Local:
    """An artifact on disk, checked.

    Attributes:
        files: All files but hidden ones.
        rooms: Its folders with models.
    """

    files: tuple[Entry, ...]
    rooms: tuple[Room, ...]

    def own_card(self, prefix: str) -> bool:
        """Whether a folder has a card that somebody wrote or changed."""
        return any(file.path == prefix + card.NAME and not _is_unchanged_card(file) for file in self.files)


def read(folder: Path, progress: ProgressCallback) -> Local:
    """Read and check an artifact.

    Args:
        folder: Folder of the artifact, or of several in subfolders.
        progress: Called after every block of a file.

    Raises:
        NotFoundError: The folder holds no model.
        InputError: A model cannot be read, or a link leads out of the folder.
        VerificationError: A file differs from SHA256SUMS, or an artifact has no such list.
    """
    paths = _files(folder)
    model_folders = models_in(folder)
    if not model_folders:
        raise NotFoundError("holds no model", "name the folder that gemmaq convert made", path=folder)
    files = [_of_file(path, path.relative_to(folder).as_posix(), progress) for path in paths]
    _check(folder, files)
    return Local(tuple(files), tuple(_room(place, folder) for place in model_folders))


def _room(place: Path, folder: Path) -> Room:
    """The models in a folder."""
    records, prefix = provenance.read(place), place.relative_to(folder).as_posix()
    first = parts(file.path for file in records[0].files).model[:1] if len(records) > 1 else ()
    checkpoint = open_source(str(place.joinpath(*first)), ALL)
    name, repo = (records[0].name, records[0].repo) if records else (None, None)
    like = of_checkpoint(checkpoint, place, name=name, repo=repo)
    names = sorted(path.name for path in place.iterdir() if path.is_file())
    models = of_records(records, like, names) or [like]
    return Room("" if prefix == "." else f"{prefix}/", checkpoint, tuple(models), records)


def settings(local: Local) -> list[Entry]:
    """Ollama's settings for the artifact, where it lacks them."""
    if any(file.path == modelfile.PARAMS_FILE for file in local.files):
        return []
    models = (room.checkpoint for room in local.rooms)
    contents = (modelfile.params(model) for model in models if of_checkpoint_format(model.format).ollama)
    content = next(contents, None)
    return [of_data(modelfile.PARAMS_FILE, content)] if content is not None else []


def _files(folder: Path) -> list[Path]:
    """All files of the folder but hidden ones.

    Raises:
        NotFoundError: There is no such folder.
        InputError: A link leads out of it.
    """
    if not folder.is_dir():
        raise NotFoundError("is not a folder", "name the folder that gemmaq convert made", path=folder)
    present = sorted(path for path in folder.rglob("*") if not is_hidden(path, folder))
    for path in present:
        if path.is_symlink() and not (path.is_file() and folder.resolve() in path.resolve().parents):
            raise InputError(f"is a link that leads out of {folder} or nowhere", "publish real files", path=path)
    return [path for path in present if path.is_file()]


def _is_unchanged_card(file: Entry) -> bool:
    return file.local is not None and card.is_ours(read_bytes(file.local).decode("utf-8", "replace"))


def _check(folder: Path, files: Sequence[Entry]) -> None:
    """Compare the files with all lists of checksums in the folder; only a card may have changed.

    Raises:
        VerificationError: A file differs from its entry, or is missing; or an artifact has no list of its files.
    """
    digests, hint = {entry.path: entry.sha256 for entry in files}, f"see gemmaq verify {shell(str(folder))}"
    for path in [name for name in digests if name.rpartition("/")[2] == provenance.NAME]:
        _check_finished(folder, path.removesuffix(provenance.NAME), digests, hint)
    for path in [name for name in digests if name.rpartition("/")[2] == sums.NAME]:
        subfolder = path.removesuffix(sums.NAME)
        listed = sums.read(folder / subfolder) or {}
        for name in sorted(listed.keys() - {card.NAME}):
            if digests.get(subfolder + name) != listed[name]:
                problem = f"does not match its entry in {sums.NAME}"
                if subfolder + name not in digests:
                    problem = f"is missing, but {sums.NAME} lists it"
                raise VerificationError(problem, hint, path=folder / subfolder / name)


def _check_finished(folder: Path, subfolder: str, digests: Mapping[str, str], hint: str) -> None:
    """Check that an artifact on record has a list of checksums with its record and its weights, as on record.

    Args:
        folder: Folder that is published.
        subfolder: Place of the artifact in it, with a slash at its end unless it is empty.
        digests: Path in the folder -> SHA-256 of every file.
        hint: What to do next.

    Raises:
        VerificationError: It has not.
    """
    place = folder / subfolder
    if subfolder + sums.NAME not in digests:
        raise VerificationError("is missing: the artifact was not finished", hint, path=place / sums.NAME)
    listed = sums.read(place) or {}
    weights = {file.path: file.sha256 for record in provenance.read(place) for file in record.files}
    for name in (provenance.NAME, *weights):
        if name not in listed:
            raise VerificationError(f"is not in {sums.NAME}", hint, path=place / name)
        if name in weights and listed[name] != weights[name]:
            raise VerificationError(f"is not what {provenance.NAME} says", hint, path=place / name)


def _of_file(path: Path, name: str, progress: ProgressCallback) -> Entry:
    size = path.stat().st_size
    sha256, sha1 = hashlib.sha256(), hashlib.sha1(f"blob {size}\0".encode())
    is_small = size < _SMALL
    done = 0

    def on_read(count: int) -> None:
        nonlocal done
        done += count
        progress(Progress("reading", done, size, "bytes", item=name))

    feed(path, [sha256, sha1] if is_small else [sha256], on_read)
    return Entry(name, size, sha256.hexdigest(), sha1.hexdigest() if is_small else "", path)


def of_data(name: str, data: bytes) -> Entry:
    """A file that is created for publishing."""
    oid = hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
    return Entry(name, len(data), hashlib.sha256(data).hexdigest(), oid, data=data)


def changed(files: Sequence[Entry], remote: dict[str, str]) -> list[Entry]:
    """The files that a repository lacks or has with another content.

    Args:
        files: All files.
        remote: Path -> SHA-256 of a large file, or git's id of a small one.
    """
    return [entry for entry in files if remote.get(entry.path) not in (entry.sha256, entry.oid)]
