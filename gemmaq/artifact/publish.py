"""A finished artifact as it is to be published: its files with their digests, and what goes beside them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gemmaq.artifact import card, params, provenance, sums
from gemmaq.artifact.digests import feed
from gemmaq.artifact.folder import is_hidden, models_in
from gemmaq.checkpoint import Checkpoint
from gemmaq.errors import InputError, NotFoundError, VerificationError
from gemmaq.progress import Progress, ProgressCallback
from gemmaq.sources.open import open_source

_SMALL = 1 << 22
"""Bytes below which git's own id of a file is wanted too."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file to publish.

    Attributes:
        path: within the repository.
        size: bytes.
        sha256: of its content.
        oid: git's id of it as a small file.
        local: where it lies, None for one that is made for publishing.
        data: its content where it is made.
    """

    path: str
    size: int
    sha256: str
    oid: str
    local: Path | None = None
    data: bytes = b""


def entries(folder: Path, repo: str, progress: ProgressCallback) -> list[Entry]:
    """All files of an artifact, with a card and settings for Ollama where it has none, and the list of all of them.

    A card that gemmaq wrote and nobody changed gives way to one that runs the model from its repository; any other is
    published as it is.

    Args:
        folder: of the artifact, or of several in folders of their own.
        repo: where it is to be published, for the lines that run it.
        progress: called after every block of a file.

    Raises:
        NotFoundError: there is nothing to publish.
        InputError: a model in it cannot be read, or a link leads astray.
        VerificationError: a file is not what SHA256SUMS says.
    """
    if not folder.is_dir():
        raise NotFoundError(f"{folder} is no folder", "name the folder that gemmaq convert made")
    present = sorted(path for path in folder.rglob("*") if not is_hidden(path, folder))
    for path in present:
        if path.is_symlink() and not (path.is_file() and folder.resolve() in path.resolve().parents):
            raise InputError(f"{path} leads out of {folder}, to a folder or nowhere", "publish real files")
    paths = [path for path in present if path.is_file()]
    places = models_in(folder)
    if not places:
        raise NotFoundError(f"{folder} holds no model", "name the folder that gemmaq convert made")
    found = [_of_file(path, path.relative_to(folder).as_posix(), progress) for path in paths]
    _check(folder, found)
    replaced = {sums.NAME} | ({card.NAME} if _is_replaced(folder / card.NAME) else set())
    kept = [entry for entry in found if entry.path not in replaced]
    have = {entry.path for entry in kept}
    models = [open_source(str(place)) for place in places]
    made = []
    if params.NAME not in have:
        content = next((params.text(model) for model in models if model.format == "gguf"), None)
        made += [_of_data(params.NAME, content)] if content is not None else []
    if card.NAME not in have:
        listed = sorted((entry.path, entry.size, entry.sha256) for entry in (*kept, *made))
        about = [_about(model, place) for model, place in zip(models, places, strict=True)]
        made.append(_of_data(card.NAME, card.text(repo, about, listed).encode()))
    result = sorted([*kept, *made], key=lambda entry: entry.path)
    return [*result, _of_data(sums.NAME, sums.text({entry.path: entry.sha256 for entry in result}))]


def _about(model: Checkpoint, folder: Path) -> card.Model:
    known = provenance.read(folder)
    return card.of_checkpoint(model, folder, known.name if known else None, known.repo if known else None)


def _is_replaced(path: Path) -> bool:
    return path.is_file() and card.is_ours(path.read_text("utf-8", errors="replace"))


def _check(folder: Path, found: Sequence[Entry]) -> None:
    """Refuse to publish what is not what was made; a card may be changed, and is anyone's.

    Raises:
        VerificationError: naming the first file that is not what SHA256SUMS says.
    """
    digests = {entry.path: entry.sha256 for entry in found}
    for path in [name for name in digests if name.rpartition("/")[2] == sums.NAME]:
        inner = path.removesuffix(sums.NAME)
        listed = sums.read(folder / inner) or {}
        for name in sorted(listed.keys() - {card.NAME}):
            if digests.get(inner + name) != listed[name]:
                what = "is not what" if inner + name in digests else "is missing, and"
                raise VerificationError(
                    f"{folder / inner / name} {what} {sums.NAME} lists", f"gemmaq verify {folder} says more"
                )


def _of_file(path: Path, name: str, progress: ProgressCallback) -> Entry:
    size = path.stat().st_size
    sha256, sha1 = hashlib.sha256(), hashlib.sha1(f"blob {size}\0".encode())
    small = size < _SMALL
    done = 0

    def told(count: int) -> None:
        nonlocal done
        done += count
        progress(Progress("reading", done, size, "bytes", item=name))

    feed(path, [sha256, sha1] if small else [sha256], told)
    return Entry(name, size, sha256.hexdigest(), sha1.hexdigest() if small else "", path)


def _of_data(name: str, data: bytes) -> Entry:
    oid = hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
    return Entry(name, len(data), hashlib.sha256(data).hexdigest(), oid, data=data)


def changed(wanted: Sequence[Entry], present: dict[str, str]) -> list[Entry]:
    """Those that a repository does not have yet.

    Args:
        wanted: all files.
        present: path -> sha256 of a large file, or git's id of a small one.
    """
    return [entry for entry in wanted if present.get(entry.path) not in (entry.sha256, entry.oid)]
