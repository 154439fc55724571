"""An artifact united with what a repository holds already: models in other types stay in card, record and checksums."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from gemmaq.artifact import card, modelfile, pictures, provenance, record
from gemmaq.artifact.description import Model, of_records
from gemmaq.artifact.folder import is_left_behind
from gemmaq.artifact.footprint import Memory
from gemmaq.artifact.provenance import Provenance
from gemmaq.artifact.publish import Entry, Local, Room, changed, of_data, settings
from gemmaq.artifact.repository import Repository
from gemmaq.errors import InputError, OutputError
from gemmaq.files import sums
from gemmaq.files.names import parts
from gemmaq.planning.containers import CONTAINERS

_SETTINGS = (modelfile.FILE, modelfile.PARAMS_FILE)
_WRITTEN = (card.NAME, sums.NAME, provenance.NAME, *pictures.NAMES, *_SETTINGS)
"""Files that gemmaq writes for all models of a folder: they may differ from those in the repository."""


@dataclass(frozen=True, slots=True)
class Merged:
    """What a repository has to hold after a push.

    Attributes:
        files: All files of the artifact, and those that are written for all models.
        missing: Those that the repository lacks or has with another content.
        kept: Path -> SHA-256 of the repository's other files.
        replaced: Paths of files whose content changes, those aside that gemmaq writes.
        notes: A sentence for each thing that the user should know.
    """

    files: tuple[Entry, ...]
    missing: tuple[Entry, ...]
    kept: dict[str, str]
    replaced: tuple[str, ...]
    notes: tuple[str, ...]


def merge(local: Local, repository: Repository | None, repo: str, *, memory: Memory, force: bool) -> Merged:
    """Unite an artifact with a repository, or with the folder of it that is pushed to.

    Args:
        local: The artifact.
        repository: The repository, None if it does not exist.
        repo: Its name, for the commands in the card.
        memory: What the card says of memory.
        force: Files of the repository may be replaced.

    Raises:
        OutputError: The repository holds another model, or a file of the same name with another content.
        InputError: Its gemmaq.json cannot be read.
    """
    there = {} if repository is None else {path: f for path, f in repository.files.items() if not is_left_behind(path)}
    files = {entry.path: entry for entry in (*local.files, *settings(local))}
    if repository is not None and not force:
        for room in local.rooms:
            _check_container(room, repository)
    rooms = [_united(room, repository, {*there, *files}) for room in local.rooms]
    notes: list[str] = []
    for room, before in zip(rooms, local.rooms, strict=True):
        if repository is not None and room.records != before.records:
            entries = [known.entry for known in room.records]
            path = room.prefix + provenance.NAME
            files[path] = of_data(path, record.text(room.records[0].container, entries))
            if room.records[0] != before.records[0]:  # Ollama's settings name the first model
                for name in (room.prefix + side for side in _SETTINGS):
                    if name in there:
                        files.pop(name, None)
    owned = [path for path in files if path.rpartition("/")[2] not in _WRITTEN]
    replaced = [e.path for e in changed([files[p] for p in owned if p in there], {p: there[p].etag for p in there})]
    if replaced and not force:
        raise OutputError(
            f"{repo} has {replaced[0]} with another content", "--force replaces it, --subfolder DIR puts it elsewhere"
        )
    written = {sums.NAME}
    if not local.own_card(""):
        files.pop(card.NAME, None)
        if repository is None or _is_free(repository):
            written.add(card.NAME)
        else:
            notes.append(f"{card.NAME} of the repository is not gemmaq's or was changed: it stays as it is")
    files.pop(sums.NAME, None)
    models = [model for room in rooms for model in room.models]
    if card.NAME in written:
        models += _elsewhere(repository, local, [*there]) if repository is not None else []
        sizes = {path: file.size for path, file in there.items()} | {path: entry.size for path, entry in files.items()}
        for name in pictures.NAMES:
            files.pop(name, None)
        files |= {name: of_data(name, data) for name, data in pictures.draw(models, sizes, memory).items()}
    kept = {path: file for path, file in there.items() if path not in files and path not in written}
    digests = {} if repository is None else repository.digests(kept)
    if card.NAME in written:
        listed = [(path, there[path].size, digests[path]) for path in kept]
        listing = sorted([*listed, *((entry.path, entry.size, entry.sha256) for entry in files.values())])
        files[card.NAME] = of_data(card.NAME, card.text(repo, models, listing, memory=memory).encode())
    for prefix in sorted({room.prefix for room in rooms} - {""}):
        _list_anew(prefix, files, digests)
    whole = digests | {path: entry.sha256 for path, entry in files.items()}
    files[sums.NAME] = of_data(sums.NAME, sums.text(whole))
    ordered = sorted(files.values(), key=lambda entry: (entry.path == sums.NAME, entry.path))
    missing = changed(ordered, {path: file.etag for path, file in there.items()})
    return Merged(tuple(ordered), tuple(missing), digests, tuple(replaced), tuple(notes))


def _check_container(room: Room, repository: Repository) -> None:
    """Refuse to replace the gemmaq.json of models in another container, which would lose their record."""
    for known in repository.records(room.prefix) if room.records else ():
        if known.container != room.records[0].container:
            raise OutputError(
                f"{repository.listing.ref} holds {known.container} models, this is {room.records[0].container}",
                "--subfolder DIR puts it beside them, --force replaces their gemmaq.json",
            )


def _united(room: Room, repository: Repository | None, present: set[str]) -> Room:
    """A folder's models and those of the same folder of the repository that stay there."""
    if repository is None or not room.records or not CONTAINERS[room.records[0].container].several:
        return room
    before = [known for known in repository.records(room.prefix) if known.container == room.records[0].container]
    for known in before:
        if known.name != room.records[0].name:
            raise OutputError(
                f"{repository.listing.ref} holds {known.name}, this is {room.records[0].name}",
                "push it to a repository of its own, or with --subfolder DIR",
            )
    own = {_main(known) for known in room.records}
    stays = [
        known
        for known in before
        if _main(known) not in own and all(room.prefix + file.path in present for file in known.files)
    ]
    order = [_main(known) for known in before]
    records = sorted((*stays, *room.records), key=lambda known: _position(order, _main(known)))
    models = of_records(records, room.models[0], _inside(room.prefix, present))
    return replace(room, records=tuple(records), models=tuple(models))


def _inside(prefix: str, paths: Iterable[str]) -> list[str]:
    """Names of the files that lie in a folder itself."""
    names = (path.removeprefix(prefix) for path in paths if path.startswith(prefix))
    return sorted(name for name in names if "/" not in name)


def _elsewhere(repository: Repository, local: Local, paths: list[str]) -> list[Model]:
    """Models of the same source in folders of the repository that the artifact does not have."""
    like, models = local.rooms[0].models[0], list[Model]()
    for prefix in [path.removesuffix(provenance.NAME) for path in paths if path.endswith(provenance.NAME)]:
        if prefix in {room.prefix for room in local.rooms}:
            continue
        try:
            records = repository.records(prefix)
        except InputError:
            continue  # the record of another tool, or of a newer gemmaq
        if records and all(known.name == like.name for known in records):
            in_container = replace(like, container=CONTAINERS[records[0].container])
            models += of_records(records, in_container, _inside(prefix, paths))
    return models


def _position(order: list[str], name: str) -> int:
    """Models keep their places in the repository, new ones follow."""
    return order.index(name) if name in order else len(order)


def _main(known: Provenance) -> str:
    """The file that tells models of a folder apart: the first one of the model."""
    return next(iter(parts(file.path for file in known.files).model), "")


def _is_free(repository: Repository) -> bool:
    """Whether the repository has no card but an unchanged one of gemmaq."""
    data = repository.read(card.NAME)
    return data is None or card.is_ours(data.decode("utf-8", errors="replace"))


def _list_anew(prefix: str, files: dict[str, Entry], kept: dict[str, str]) -> None:
    """The checksums in a folder of the artifact, where the repository has more files in it than the artifact."""
    path = prefix + sums.NAME
    if path in files and any(name.startswith(prefix) for name in kept):
        inside = {n: e.sha256 for n, e in files.items() if n.startswith(prefix) and n != path}
        inside |= {name: digest for name, digest in kept.items() if name.startswith(prefix) and name != path}
        files[path] = of_data(path, sums.text({name.removeprefix(prefix): digest for name, digest in inside.items()}))
