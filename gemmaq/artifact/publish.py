"""The files of an artifact as they are published: checked, with a card, settings for Ollama and checksums."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gemmaq.artifact import card, modelfile, provenance, sums
from gemmaq.artifact.digests import feed
from gemmaq.artifact.folder import is_hidden, models_in
from gemmaq.checkpoint import Checkpoint
from gemmaq.errors import InputError, NotFoundError, VerificationError
from gemmaq.planning.containers import of_checkpoint_format
from gemmaq.progress import Progress, ProgressCallback
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


def entries(folder: Path, repo: str, progress: ProgressCallback, *, memory: Callable[[card.Model], str]) -> list[Entry]:
    """All files to publish, with a card, `params` and SHA256SUMS where the artifact lacks them.

    An unchanged card of gemmaq is replaced by one whose commands name the repository; any other card is published as
    it is.

    Args:
        folder: Folder of the artifact, or of several in subfolders.
        repo: Repository to publish to, for the commands in the card.
        progress: Called after every block of a file.
        memory: Text of the card about the memory that a model takes.

    Raises:
        NotFoundError: The folder holds no model.
        InputError: A model cannot be read, or a link leads out of the folder.
        VerificationError: A file differs from SHA256SUMS.
    """
    paths = _files(folder)
    model_folders = models_in(folder)
    if not model_folders:
        raise NotFoundError("holds no model", "name the folder that gemmaq convert made", path=folder)
    local = [_of_file(path, path.relative_to(folder).as_posix(), progress) for path in paths]
    _check(folder, local)
    replaced = {sums.NAME} | ({card.NAME} if _is_unchanged_card(folder / card.NAME) else set())
    files = [entry for entry in local if entry.path not in replaced]
    names = {entry.path for entry in files}
    models = [open_source(str(place)) for place in model_folders]
    if modelfile.PARAMS_FILE not in names:
        content = next((modelfile.params(model) for model in models if of_checkpoint_format(model.format).ollama), None)
        files += [_of_data(modelfile.PARAMS_FILE, content)] if content is not None else []
    if card.NAME not in names:
        listing = sorted((entry.path, entry.size, entry.sha256) for entry in files)
        described = [_describe(model, place) for model, place in zip(models, model_folders, strict=True)]
        files.append(_of_data(card.NAME, card.text(repo, described, listing, memory=memory).encode()))
    files.sort(key=lambda entry: entry.path)
    return [*files, _of_data(sums.NAME, sums.text({entry.path: entry.sha256 for entry in files}))]


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


def _describe(model: Checkpoint, folder: Path) -> card.Model:
    """A model for the card; its name and source are those in gemmaq.json, if there is one."""
    record = provenance.read(folder)
    return card.of_checkpoint(model, folder, name=record.name if record else None, repo=record.repo if record else None)


def _is_unchanged_card(path: Path) -> bool:
    return path.is_file() and card.is_ours(path.read_text("utf-8", errors="replace"))


def _check(folder: Path, files: Sequence[Entry]) -> None:
    """Compare the files with all lists of checksums in the folder; only a card may have changed.

    Raises:
        VerificationError: A file differs from its entry, or is missing.
    """
    digests = {entry.path: entry.sha256 for entry in files}
    for path in [name for name in digests if name.rpartition("/")[2] == sums.NAME]:
        subfolder = path.removesuffix(sums.NAME)
        listed = sums.read(folder / subfolder) or {}
        for name in sorted(listed.keys() - {card.NAME}):
            if digests.get(subfolder + name) != listed[name]:
                problem = f"does not match its entry in {sums.NAME}"
                if subfolder + name not in digests:
                    problem = f"is missing, but {sums.NAME} lists it"
                raise VerificationError(problem, f"see gemmaq verify {folder}", path=folder / subfolder / name)


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


def _of_data(name: str, data: bytes) -> Entry:
    oid = hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
    return Entry(name, len(data), hashlib.sha256(data).hexdigest(), oid, data=data)


def changed(files: Sequence[Entry], remote: dict[str, str]) -> list[Entry]:
    """The files that a repository lacks or has with another content.

    Args:
        files: All files.
        remote: Path -> SHA-256 of a large file, or git's id of a small one.
    """
    return [entry for entry in files if remote.get(entry.path) not in (entry.sha256, entry.oid)]
