"""Check an artifact against itself: digests, headers, tokenizer and gemmaq.json must agree."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from gemmaq.artifact import provenance
from gemmaq.artifact.digests import of_files
from gemmaq.artifact.folder import has_model, is_left_behind, parts_of
from gemmaq.artifact.provenance import Provenance
from gemmaq.checkpoint import Checkpoint
from gemmaq.containers.layout import StoredArray
from gemmaq.errors import GemmaqError, NotFoundError
from gemmaq.files import sums
from gemmaq.files.names import is_imatrix, parts
from gemmaq.progress import Progress, ProgressCallback
from gemmaq.verify import structure

_Content = TypeVar("_Content")


@dataclass(frozen=True, slots=True)
class Report:
    """Result of the examination of a model.

    Attributes:
        path: the artifact's folder; the GGUF file that was named, or the model's where several lie in one folder.
        name: path within the folder that was named; empty if they are the same.
        model: the artifact as a checkpoint, None if its headers cannot be read.
        record: what its gemmaq.json says of the model, None if it has none.
        stored: arrays in its files by name; None without a record, or if they cannot be read.
        listed: number of files that SHA256SUMS lists for it, None if there is none.
        files: path -> SHA-256 of each file that was read.
        problems: a sentence for each; none for a good artifact.
    """

    path: Path
    name: str
    model: Checkpoint | None
    record: Provenance | None
    stored: Mapping[str, StoredArray] | None
    listed: int | None
    files: Mapping[str, str]
    problems: tuple[str, ...]

    @property
    def has_drafter(self) -> bool:
        """Whether a drafter lies beside the model, or should."""
        recorded = self.record is not None and self.record.drafter is not None
        return recorded or (self.model is not None and self.model.drafter is not None)


def check(artifact: Path, progress: ProgressCallback | None = None) -> list[str]:
    """Problems of an artifact, a sentence for each; none for a good artifact.

    Args:
        artifact: its folder, the parent folder of several, or a GGUF file.
        progress: called after every block that was read, in bytes.

    Raises:
        NotFoundError: there is no artifact.
    """
    return list(dict.fromkeys(problem for report in examine(artifact, progress) for problem in report.problems))


@dataclass(frozen=True, slots=True)
class _Folder:
    """A folder with files that its SHA256SUMS or gemmaq.json names.

    Attributes:
        path: path of the folder.
        prefix: how its files' paths begin, relative to the folder that was named.
        files: path within the folder -> path on disk.
        listed: content of its SHA256SUMS, None if that is missing or broken.
        records: content of its gemmaq.json, a record for each model; none if that is missing or broken.
        problems: problems of these two files.
    """

    path: Path
    prefix: str
    files: Mapping[str, Path]
    listed: Mapping[str, str] | None
    records: tuple[Provenance, ...]
    problems: tuple[str, ...]


def examine(artifact: Path, progress: ProgressCallback | None = None) -> list[Report]:
    """Examine an artifact, or each of several in subfolders; arguments and errors as for `check`."""
    if artifact.is_file():
        if not (artifact.parent / provenance.NAME).is_file():
            model, problems = structure.open_model(artifact)
            return [Report(artifact, "", model, None, None, None, {}, tuple(problems))]
        return _examine_one(artifact, progress)
    if not artifact.is_dir():
        raise NotFoundError("does not exist", "name the folder that gemmaq convert made", path=artifact)
    subfolders = parts_of(artifact)
    own_files = (provenance.NAME,) if subfolders else (provenance.NAME, sums.NAME)
    is_one = has_model(artifact) or any((artifact / name).is_file() for name in own_files)
    names = [""] if is_one else subfolders
    if not names:
        raise NotFoundError("holds no artifact", "name the folder that gemmaq convert made", path=artifact)
    files, problems = _files(artifact)
    folders = [_folder(artifact, name, files) for name in names]
    parents = [] if is_one else [_folder(artifact, "", files)]
    checkable = tuple(f.prefix for f in (*folders, *parents) if f.listed is not None or f.records)
    hashed = {name: path for name, path in files.items() if name.startswith(checkable)}
    models, digests = _opened(lambda: [model for folder in folders for model in _models(folder)], hashed, progress)
    for parent in parents:
        prefixes = tuple(folder.prefix for folder in folders)
        strays = [] if parent.listed is not None else [name for name in files if not name.startswith(prefixes)]
        problems += [*parent.problems, *_sums_problems(parent, digests)]
        problems += [f"{stray} belongs to none of the artifacts beside it" for stray in strays]
    reports = [_report(model, digests) for model in models]
    return [replace(reports[0], problems=(*problems, *reports[0].problems)), *reports[1:]]


def _examine_one(path: Path, progress: ProgressCallback | None) -> list[Report]:
    """Examine the model of a GGUF file, if several lie in its folder; otherwise the whole folder."""
    folder = _folder(path.parent, "", _files(path.parent)[0])
    record = next((one for one in folder.records if path.name in (file.path for file in one.files)), None)
    if record is None or len(folder.records) < 2:
        return examine(path.parent, progress)
    own = {file.path for file in record.files}
    alone = _part(folder, own, record, sums_known=False)
    hashed = {name: place for name, place in alone.files.items() if name != sums.NAME}
    main = path.parent.joinpath(*parts(own).model[:1])
    (model,), digests = _opened(lambda: [_model(alone, {*hashed}, main)], hashed, progress)
    return [replace(_report(model, digests), name="")]


def _opened(
    models: Callable[[], list[_Model]], files: Mapping[str, Path], progress: ProgressCallback | None
) -> tuple[list[_Model], dict[str, str]]:
    """Models, which are opened while files are hashed; and the digests."""
    stop = threading.Event()
    with ThreadPoolExecutor(1) as beside:
        digests = beside.submit(_digests, files, progress, stop)
        try:
            return models(), digests.result()
        finally:
            stop.set()  # after an interruption, leaving waits for no large file


@dataclass(frozen=True, slots=True)
class _Model:
    """A model of a folder that was opened.

    Attributes:
        folder: what of its folder belongs to it.
        names: its files, paths within the folder.
        path: its folder or file.
        checkpoint: the model, None if it cannot be opened.
        stored: its arrays by name, None without a record or if they cannot be read.
        problems: of headers, tokenizer and what lies beside it.
    """

    folder: _Folder
    names: Set[str]
    path: Path
    checkpoint: Checkpoint | None
    stored: Mapping[str, StoredArray] | None
    problems: tuple[str, ...]

    @property
    def record(self) -> Provenance | None:
        """What its gemmaq.json says of it."""
        return next(iter(self.folder.records), None)


def _models(folder: _Folder) -> list[_Model]:
    """The models of a folder, opened."""
    if len(folder.records) < 2:
        return [_model(folder, {*folder.files}, folder.path)]
    models: list[_Model] = []
    known = {*folder.files, *(folder.listed or ())}
    for record in folder.records:
        own = [file.path for file in record.files]
        others = {file.path for other in folder.records if other is not record for file in other.files}
        mine = {*own} if models else known - (others - {*own})  # files of no model are the first one's
        part = _part(folder, mine, record, sums_known=bool(models))
        models.append(_model(part, mine, folder.path.joinpath(*parts(own).model[:1])))
    return models


def _part(folder: _Folder, names: Set[str], record: Provenance, *, sums_known: bool) -> _Folder:
    """What of a folder belongs to one model; with `sums_known` its lists' problems are another one's."""
    files = {name: place for name, place in folder.files.items() if name in names or name == sums.NAME}
    if sums_known:
        files.setdefault(sums.NAME, folder.path / sums.NAME)
    listed = folder.listed
    if listed is not None:
        listed = {name: digest for name, digest in listed.items() if name in names}
    problems = () if sums_known else folder.problems
    return replace(folder, files=files, listed=listed, records=(record,), problems=problems)


def _model(folder: _Folder, names: Set[str], path: Path) -> _Model:
    """Open a model; `path` is its folder or file, the others as in `_Model`."""
    is_missing = path != folder.path and path.name not in folder.files  # a problem already
    is_closed = is_missing or provenance.is_of_adapter(folder.path)
    checkpoint, problems = (None, []) if is_closed else structure.open_model(path, folder.path)
    record, stored = next(iter(folder.records), None), None
    if record is not None and all(file.path in folder.files for file in record.files):
        try:
            stored = structure.arrays(folder.path, record)
            problems += structure.header_problems(record, stored)
        except GemmaqError as error:
            problems.append(error.relative_to(folder.path).message)
    return _Model(folder, names, path, checkpoint, stored, tuple(dict.fromkeys(problems)))


def _report(model: _Model, all_digests: Mapping[str, str]) -> Report:
    """Report on a model whose files have been hashed."""
    folder, prefix = model.folder, model.folder.prefix
    files = {name: all_digests[prefix + name] for name in folder.files if prefix + name in all_digests}
    problems = (
        *folder.problems,
        *_sums_problems(folder, all_digests),
        *_record_problems(folder, files),
        *(prefix + problem for problem in model.problems),
    )
    files = {name: digest for name, digest in files.items() if name in model.names}
    listed = None if folder.listed is None else len(folder.listed.keys() & files.keys())
    name = prefix + model.path.name if model.path != folder.path else prefix.rstrip("/")
    return Report(model.path, name, model.checkpoint, model.record, model.stored, listed, files, problems)


def _folder(root: Path, name: str, files: Mapping[str, Path]) -> _Folder:
    path, prefix = root / name, f"{name}/" if name else ""
    problems: list[str] = []

    def read(reader: Callable[[Path], _Content]) -> _Content | None:
        try:
            return reader(path)
        except GemmaqError as error:
            problems.append(prefix + error.relative_to(path).message)
            return None

    listed, records = read(sums.read), read(provenance.read) or ()
    inside = {file.removeprefix(prefix): files[file] for file in files if file.startswith(prefix)}
    return _Folder(path, prefix, inside, listed, records, tuple(problems))


def _files(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """All regular files in a folder, and links to such files by relative path; and a problem for anything else."""
    files: dict[str, Path] = {}
    problems: list[str] = []
    for parent, folders, names in os.walk(folder, onerror=lambda error: problems.append(str(error))):
        for name in [*names, *(name for name in folders if os.path.islink(os.path.join(parent, name)))]:
            path = Path(parent, name)
            relative = path.relative_to(folder).as_posix()
            if is_left_behind(relative):
                continue
            if path.is_file():
                files[relative] = path
            else:
                problems.append(f"{relative} is not a regular file")
    return dict(sorted(files.items())), problems


def _digests(files: Mapping[str, Path], progress: ProgressCallback | None, stop: threading.Event) -> dict[str, str]:
    total, done, lock = sum(path.stat().st_size for path in files.values()), 0, threading.Lock()

    def add(count: int) -> None:
        nonlocal done
        with lock:
            done += count
            if progress is not None:
                progress(Progress("reading", done, total, "bytes"))

    return of_files(files, add, stop)


def _sums_problems(folder: _Folder, digests: Mapping[str, str]) -> list[str]:
    """Differences between the files of a folder and its SHA256SUMS."""
    if folder.listed is None:
        return []
    prefix, files, listed = folder.prefix, folder.files, folder.listed
    problems = [f"{prefix}{name} is missing" for name in sorted(listed.keys() - files.keys())]
    problems += [f"{prefix}{name} is not in {sums.NAME}" for name in sorted(files.keys() - listed.keys() - {sums.NAME})]
    changed = [name for name in sorted(listed.keys() & files.keys()) if digests[prefix + name] != listed[name]]
    return problems + [f"{prefix}{name} is not what {sums.NAME} says: it was changed" for name in changed]


def _record_problems(folder: _Folder, digests: Mapping[str, str]) -> list[str]:
    """Differences between the weights of a folder and its gemmaq.json that SHA256SUMS does not show already."""
    if not folder.records:
        return []
    prefix, listed = folder.prefix, folder.listed or {}
    weights = dict.fromkeys(file for record in folder.records for file in record.files)
    problems = []
    if sums.NAME not in folder.files:
        problems.append(f"{prefix}{sums.NAME} is missing: the artifact was not finished")
    for file in weights:
        if file.path not in folder.files:
            problems += [] if file.path in listed else [f"{prefix}{file.path} is missing"]
        elif (folder.files[file.path].stat().st_size, digests[file.path]) != (file.size, file.sha256):
            is_reported = file.path in listed and digests[file.path] != listed[file.path]
            problems += [] if is_reported else [f"{prefix}{file.path} is not what {provenance.NAME} says"]
    present = {name for name in folder.files if name.endswith((".gguf", ".safetensors")) and "/" not in name}
    present = {name for name in present if not is_imatrix(name)}
    surplus = sorted(present - {file.path for file in weights} - ({*folder.files} - {*listed}))
    return problems + [f"{prefix}{name} is not named in {provenance.NAME}" for name in surplus]
