"""Whether an artifact is what was made: every digest, and that headers, tokenizer and gemmaq.json agree."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from gemmaq.artifact import provenance, sums
from gemmaq.artifact.digests import of_files
from gemmaq.artifact.folder import has_model, is_left_behind, parts_of
from gemmaq.artifact.provenance import Provenance
from gemmaq.checkpoint import Checkpoint
from gemmaq.errors import GemmaqError, NotFoundError
from gemmaq.progress import Progress, ProgressCallback
from gemmaq.verify import structure

_Read = TypeVar("_Read")


@dataclass(frozen=True, slots=True)
class Report:
    """What was found of an artifact.

    Attributes:
        place: its folder, or the GGUF file that was named.
        name: of the place within what was named, empty for that itself.
        model: its headers, None if they cannot be read.
        known: what its gemmaq.json says, None if it has none.
        listed: how many files its SHA256SUMS lists, None if it has none.
        files: digests of its files by path, of those that were read.
        problems: a sentence each, none for a good artifact.
    """

    place: Path
    name: str
    model: Checkpoint | None
    known: Provenance | None
    listed: int | None
    files: Mapping[str, str]
    problems: tuple[str, ...]


def check(artifact: Path, progress: ProgressCallback | None = None) -> list[str]:
    """What is wrong with an artifact, a sentence each; nothing if it is good.

    Args:
        artifact: its folder, that of several in folders of their own, or a GGUF file.
        progress: called after every block, with bytes.

    Raises:
        NotFoundError: there is nothing of the kind.
    """
    return [problem for report in examine(artifact, progress) for problem in report.problems]


@dataclass(frozen=True, slots=True)
class _Folder:
    """A folder of which something is said.

    Attributes:
        place: where it is.
        inner: how paths in what was named begin that lie in it.
        files: paths within it -> where they lie.
        listed: what its SHA256SUMS says, None if that is missing or broken.
        known: what its gemmaq.json says, None likewise.
        problems: of these two files.
    """

    place: Path
    inner: str
    files: Mapping[str, Path]
    listed: Mapping[str, str] | None
    known: Provenance | None
    problems: tuple[str, ...]


def examine(artifact: Path, progress: ProgressCallback | None = None) -> list[Report]:
    """Look at an artifact, or at each of several in folders of their own; see `check`."""
    if artifact.is_file():
        if not (artifact.parent / provenance.NAME).is_file():
            model, problems = structure.opened(artifact)
            return [Report(artifact, "", model, None, None, {}, tuple(problems))]
        artifact = artifact.parent
    if not artifact.is_dir():
        raise NotFoundError("does not exist", "name the folder that gemmaq convert made", path=artifact)
    parts = parts_of(artifact)
    said = (provenance.NAME,) if parts else (provenance.NAME, sums.NAME)
    alone = has_model(artifact) or any((artifact / name).is_file() for name in said)
    names = [""] if alone else parts
    if not names:
        raise NotFoundError("holds no artifact", "name the folder that gemmaq convert made", path=artifact)
    files, odd = _files(artifact)
    folders = [_folder(artifact, name, files) for name in names]
    above = [] if alone else [_folder(artifact, "", files)]
    told = tuple(f.inner for f in (*folders, *above) if f.listed is not None or f.known is not None)
    digests = _digests({name: path for name, path in files.items() if name.startswith(told)}, progress)
    for root in above:
        inner = tuple(folder.inner for folder in folders)
        strays = [] if root.listed is not None else [name for name in files if not name.startswith(inner)]
        odd += [*root.problems, *_unlike_list(root, digests)]
        odd += [f"{stray} belongs to none of the artifacts beside it" for stray in strays]
    reports = [_report(folder, digests) for folder in folders]
    return [replace(reports[0], problems=(*odd, *reports[0].problems)), *reports[1:]]


def _report(folder: _Folder, digests: Mapping[str, str]) -> Report:
    """What is found in a folder, its files having been read."""
    mine = {name: digests[folder.inner + name] for name in folder.files if folder.inner + name in digests}
    problems = [*folder.problems, *_unlike_list(folder, digests), *_unlike_known(folder, mine)]
    model, found = structure.opened(folder.place)
    if folder.known is not None and all(file.path in folder.files for file in folder.known.files):
        try:
            found += structure.unlike(folder.known, structure.arrays(folder.place, folder.known.container))
        except GemmaqError as error:
            found.append(error.relative_to(folder.place).message)
    problems += [folder.inner + text for text in dict.fromkeys(found)]
    count = None if folder.listed is None else len(folder.listed)
    return Report(folder.place, folder.inner.rstrip("/"), model, folder.known, count, mine, tuple(problems))


def _folder(root: Path, name: str, files: Mapping[str, Path]) -> _Folder:
    place, inner = root / name, f"{name}/" if name else ""
    problems: list[str] = []

    def read(what: Callable[[Path], _Read]) -> _Read | None:
        try:
            return what(place)
        except GemmaqError as error:
            problems.append(inner + error.relative_to(place).message)
            return None

    listed, known = read(sums.read), read(provenance.read)
    mine = {path.removeprefix(inner): files[path] for path in files if path.startswith(inner)}
    return _Folder(place, inner, mine, listed, known, tuple(problems))


def _files(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """All regular files, links to such among them; and what else there is, which is odd."""
    files: dict[str, Path] = {}
    odd: list[str] = []
    for place, folders, names in os.walk(folder, onerror=lambda error: odd.append(str(error))):
        for name in [*names, *(name for name in folders if os.path.islink(os.path.join(place, name)))]:
            path = Path(place, name)
            called = path.relative_to(folder).as_posix()
            if is_left_behind(called):
                continue
            if path.is_file():
                files[called] = path
            else:
                odd.append(f"{called} is no regular file")
    return dict(sorted(files.items())), odd


def _digests(files: Mapping[str, Path], progress: ProgressCallback | None) -> dict[str, str]:
    if progress is None:
        return of_files(files)
    total, done, lock = sum(path.stat().st_size for path in files.values()), 0, threading.Lock()

    def told(count: int) -> None:
        nonlocal done
        with lock:
            done += count
            progress(Progress("reading", done, total, "bytes"))

    return of_files(files, told)


def _unlike_list(folder: _Folder, digests: Mapping[str, str]) -> list[str]:
    """Where the files of a folder and its SHA256SUMS differ."""
    if folder.listed is None:
        return []
    inner, files, listed = folder.inner, folder.files, folder.listed
    problems = [f"{inner}{name} is missing" for name in sorted(listed.keys() - files.keys())]
    problems += [f"{inner}{name} is not in {sums.NAME}" for name in sorted(files.keys() - listed.keys() - {sums.NAME})]
    changed = [name for name in sorted(listed.keys() & files.keys()) if digests[inner + name] != listed[name]]
    return problems + [f"{inner}{name} is not what {sums.NAME} says: it was changed" for name in changed]


def _unlike_known(folder: _Folder, digests: Mapping[str, str]) -> list[str]:
    """Where the weights of a folder and its gemmaq.json differ, as far as SHA256SUMS does not say so already."""
    if folder.known is None:
        return []
    inner, listed = folder.inner, folder.listed or {}
    problems = []
    if sums.NAME not in folder.files:
        problems.append(f"{inner}{sums.NAME} is missing: the artifact was not finished")
    for file in folder.known.files:
        if file.path not in folder.files:
            problems += [] if file.path in listed else [f"{inner}{file.path} is missing"]
        elif (folder.files[file.path].stat().st_size, digests[file.path]) != (file.size, file.sha256):
            told = file.path in listed and digests[file.path] != listed[file.path]
            problems += [] if told else [f"{inner}{file.path} is not what {provenance.NAME} says"]
    weights = {name for name in folder.files if name.endswith((".gguf", ".safetensors"))}
    surplus = sorted(weights - {file.path for file in folder.known.files} - ({*folder.files} - {*listed}))
    return problems + [f"{inner}{name} is no file that {provenance.NAME} names" for name in surplus]
