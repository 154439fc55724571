"""Folders that a later run goes on from: each holds the SHA-256 of its files, and is used only if they are the same."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gemmaq.errors import InputError
from gemmaq.files import sums


@dataclass(frozen=True, slots=True)
class Last:
    """The last folder that is as it was sealed.

    Attributes:
        folder: it; None if there is nothing to go on from.
        passed: a sentence for each later folder that is damaged.
    """

    folder: Path | None
    passed: tuple[str, ...] = ()


def digest(path: Path) -> str:
    """SHA-256 of a file in hex.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal(folder: Path) -> None:
    """Write the list of the digests of all files in a folder; nothing in it may change any more.

    Raises:
        OSError: it cannot be written.
    """
    digests = {path.name: digest(path) for path in folder.iterdir()}
    with (folder / sums.NAME).open("wb") as file:
        file.write(sums.text(digests))
        file.flush()
        os.fsync(file.fileno())


def fault(folder: Path) -> str | None:
    """What is wrong with a sealed folder, a sentence; None if it is as it was sealed."""
    try:
        listed = sums.read(folder)
        if listed is None:
            return f"{folder.name} has no {sums.NAME}"
        present = {path.name for path in folder.iterdir()} - {sums.NAME}
        for name in sorted(present ^ {*listed}):
            return f"{folder.name} {'holds' if name in present else 'lacks'} {name}, unlike its {sums.NAME}"
        for name, wanted in listed.items():
            if digest(folder / name) != wanted:
                return f"{folder.name}/{name} is damaged: it is not what {sums.NAME} says"
    except InputError as error:
        return error.relative_to(folder, folder.name).message
    except OSError as error:
        return f"{folder.name} cannot be read: {error.strerror or error}"
    return None


def last(folders: Sequence[Path], hint: str) -> Last:
    """The last of sealed folders that is intact. One without any file counts as none.

    Args:
        folders: the folders, oldest first.
        hint: what to do if none is intact.

    Raises:
        InputError: there are some, and none is intact.
    """
    passed: list[str] = []
    for folder in reversed(folders):
        if _is_empty(folder):
            continue
        problem = fault(folder)
        if problem is None:
            return Last(folder, tuple(passed))
        passed.append(problem)
    if passed:
        raise InputError(f"holds nothing to go on from: {passed[0]}", hint, path=folders[0].parent)
    return Last(None)


def numbered(folders: Iterable[Path]) -> list[Path]:
    """Folders whose names end with a number behind a hyphen, by that number; others are left out."""
    ends = ((folder.name.rpartition("-")[2], folder) for folder in folders if folder.is_dir())
    found = [(int(end), folder) for end, folder in ends if end.isascii() and end.isdigit() and len(end) < 20]
    return [folder for _, folder in sorted(found)]


def _is_empty(folder: Path) -> bool:
    try:
        return next(folder.iterdir(), None) is None
    except OSError:
        return False
