"""Measured quality on record: `gemmaq evaluate --record` adds it to gemmaq.json, card and checksums of an artifact."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gemmaq.artifact import card, description, pictures, provenance, record
from gemmaq.artifact.footprint import Memory
from gemmaq.artifact.provenance import Provenance, Quality
from gemmaq.errors import InputError, OutputError
from gemmaq.files import sums
from gemmaq.files.atomic import write_files
from gemmaq.files.names import parts
from gemmaq.files.text import read_json
from gemmaq.files.whole import read_bytes
from gemmaq.sources.companions import ALL
from gemmaq.sources.open import open_source

_HINT = "see gemmaq verify, or evaluate it without --record"


@dataclass(frozen=True, slots=True)
class Place:
    """Where the quality of a model is put on record.

    Attributes:
        folder: folder of the artifact.
        model: number of the model in its gemmaq.json.
    """

    folder: Path
    model: int


def place(source: str) -> Place:
    """Where the quality of a model goes; all is checked that can be checked before it is measured.

    Args:
        source: folder or .gguf file of an artifact.

    Raises:
        InputError: it is no artifact on disk that gemmaq made, or was changed since.
        OutputError: its card was changed, or it is a part of a published artifact.
    """
    path = Path(source)
    folder = path if path.is_dir() else path.parent
    listed, records = (sums.read(folder), provenance.read(folder)) if path.exists() else (None, ())
    if listed is None or not records:
        raise InputError("is no artifact of gemmaq on disk, where --record could write", "leave it out", path=source)
    numbers = [number for number, known in enumerate(records) if path.is_dir() or path.name in _models(known)]
    if len(numbers) != 1:
        raise InputError(f"is no model of {folder / provenance.NAME}", _HINT, path=source)
    changed = _digest(read_bytes(folder / provenance.NAME)) != listed.get(provenance.NAME)
    for file in records[numbers[0]].files:
        place = folder / file.path
        changed |= not place.is_file() or place.stat().st_size != file.size
    if changed:
        raise InputError(f"is not as {sums.NAME} and {provenance.NAME} say", _HINT, path=folder)
    if not card.is_ours(read_bytes(folder / card.NAME).decode("utf-8", "replace") if card.NAME in listed else ""):
        raise OutputError("was changed, so that --record would lose it", _HINT, path=folder / card.NAME)
    for parent in list(folder.resolve().parents)[:2]:
        name = (folder.resolve() / provenance.NAME).relative_to(parent).as_posix()
        if name in (sums.read(parent) or {}):
            raise OutputError(f"is a part of {parent}, whose {sums.NAME} lists it", _HINT, path=folder)
    return Place(folder, numbers[0])


def _models(known: Provenance) -> tuple[str, ...]:
    return parts(file.path for file in known.files).model


def write(
    folder: Path,
    measured: Mapping[int, Quality],
    *,
    memory: Memory,
    more: Mapping[int, Mapping[str, Any]] | None = None,
) -> None:
    """Add measured qualities to an artifact: record, card, its pictures and checksums are replaced, nothing else.

    Args:
        folder: folder of the artifact; see `place`.
        measured: number of a model in gemmaq.json -> its quality.
        memory: what the card says of memory.
        more: number of a model -> further keys of its entry, with their values.

    Raises:
        InputError: a model cannot be read.
        OutputError: a file cannot be written.
    """
    path = folder / provenance.NAME
    entries = [
        _with(known.entry, measured.get(number), (more or {}).get(number, {}))
        for number, known in enumerate(provenance.read(folder))
    ]
    document = record.text(_container(path), entries)
    records = provenance.parse(json.loads(document), path)
    before = sums.read(folder) or {}
    digests = before | {provenance.NAME: _digest(document)}
    for name in (card.NAME, *pictures.NAMES):
        digests.pop(name, None)
    sizes = {name: (folder / name).stat().st_size for name in digests} | {provenance.NAME: len(document)}
    first = _models(records[0])[:1] if len(records) > 1 else ()
    checkpoint = open_source(str(folder.joinpath(*first)), ALL)
    known = description.of_checkpoint(checkpoint, folder, name=records[0].name, repo=records[0].repo)
    models = description.of_records(records, known, sorted((*digests, card.NAME)))
    drawn = pictures.draw(models, sizes, memory)
    digests |= {name: _digest(picture) for name, picture in drawn.items()}
    sizes |= {name: len(picture) for name, picture in drawn.items()}
    listing = [(name, sizes[name], digest) for name, digest in sorted(digests.items())]
    text = card.text(None, models, listing, memory=memory).encode()
    digests[card.NAME] = _digest(text)
    write_files(folder, {provenance.NAME: document, card.NAME: text, **drawn, sums.NAME: sums.text(digests)})
    for name in pictures.NAMES:
        if name in before and name not in drawn:  # models are no longer measured alike
            (folder / name).unlink(missing_ok=True)


def _with(entry: Mapping[str, Any], quality: Quality | None, more: Mapping[str, Any]) -> dict[str, Any]:
    """The entry of a model, with its quality and what more is measured before the lists of files and tensors."""
    kept = {key: value for key, value in entry.items() if key not in ("schema", "container")}
    if quality is None:
        return kept
    pairs = [(key, value) for key, value in kept.items() if key != "quality" and key not in more]
    at = [key for key, _ in pairs].index("files")
    return dict([*pairs[:at], ("quality", asdict(quality)), *more.items(), *pairs[at:]])


def _container(path: Path) -> str:
    return str(read_json(path)["container"])


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
