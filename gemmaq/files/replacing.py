"""What may be replaced by an output: artifacts that gemmaq recorded file by file, and nothing that is read."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Set
from pathlib import Path

from gemmaq.errors import InputError, OutputError
from gemmaq.files import sums

RECORD = "gemmaq.json"
"""Name of the record in the folder of an artifact."""


DOWNLOADS = ".cache/huggingface/download"
"""Where a folder that `pull` made has a record for each file, as the Hub's own tools have."""


def check_download(folder: Path) -> None:
    """Let a folder be replaced only if `pull` made it, or if it is an artifact.

    Raises:
        OutputError: It holds a file of which neither has a record, or is something else.
    """
    check(folder, _downloaded(folder))


def _downloaded(folder: Path) -> set[Path]:
    """Files with a record of `pull`, which names the repository in a fourth line, and these records."""
    records = folder / DOWNLOADS
    found: set[Path] = set()
    for path in records.rglob("*.metadata"):
        try:
            is_ours = len(path.read_bytes().splitlines()) == 4
        except OSError:
            continue
        if is_ours:
            found |= {path, folder / path.relative_to(records).with_suffix("")}
    return found


def check(folder: Path, known: Set[Path] = frozenset()) -> None:
    """Let a folder be replaced only if it is an artifact, or a folder of artifacts.

    Args:
        folder: The folder.
        known: Files in it that may be replaced besides.

    Raises:
        OutputError: It holds a file that no record of gemmaq lists, or is something else.
    """
    if folder.is_symlink() or not folder.is_dir():
        raise OutputError("is not a folder", "choose another -o", path=folder)
    if folder.resolve() in _here():
        raise OutputError("is the folder you are in", "choose another -o", path=folder)
    other = next((path for path in _foreign(folder) if path not in known), None)
    if other is not None:
        raise OutputError(
            f"holds {other.relative_to(folder)}, which gemmaq did not write",
            "move it away, or choose another -o",
            path=folder,
        )


def _here() -> list[Path]:
    """The working folder and those above it; none if it was deleted."""
    try:
        return [Path.cwd(), *Path.cwd().parents]
    except FileNotFoundError:
        return []


def _foreign(folder: Path) -> Iterator[Path]:
    """Files and links of a folder that no artifact in it lists, and folders that cannot be read."""
    unreadable: list[Path] = []
    listed: set[Path] = set()
    for place, folders, names in os.walk(folder, onerror=lambda error: unreadable.append(Path(error.filename))):
        folders.sort()
        listed |= _listed(Path(place), set(names))
        links = [name for name in folders if os.path.islink(os.path.join(place, name))]
        yield from (path for path in map(Path(place).joinpath, sorted([*names, *links])) if path not in listed)
        yield from unreadable


def _listed(folder: Path, names: Set[str]) -> set[Path]:
    """Files that the record of an artifact lists, with the list itself; none in a folder that is no artifact."""
    if not names >= {RECORD, sums.NAME}:
        return set()
    try:
        found = sums.read(folder) or {}
    except InputError:
        return set()
    return {folder / name for name in (*found, sums.NAME)} if RECORD in found else set()


def check_apart(folder: Path, inputs: Iterable[Path]) -> None:
    """Check that a folder holds no input, under whatever path that is reached.

    Raises:
        OutputError: It does.
    """
    place = folder.resolve()
    for path in inputs:
        if any(place in stop.parents or place == stop for stop in _stops(path)):
            raise OutputError(f"holds {path.name}, which is read", "choose another -o", path=folder)


def _stops(path: Path) -> Iterator[Path]:
    """A path and the links it leads through, each in a folder without links."""
    for _ in range(40):  # as many as the system follows
        path = path.parent.resolve() / path.name
        yield path
        if not path.is_symlink():
            return
        path = path.parent / os.readlink(path)
