"""SHA-256 of files: of what is there, and of what is being written, on threads beside the work."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from gemmaq.errors import InputError

BLOCK = 1 << 20
FILES_AT_A_TIME = 4

Told = Callable[[int], None]
"""Called with how many more bytes were read."""


class Hash(Protocol):
    """One of hashlib's."""

    def update(self, data: memoryview, /) -> None:
        """Take more bytes."""


def feed(path: Path, hashes: Sequence[Hash], told: Told | None = None) -> None:
    """Put a file through hashes.

    Raises:
        InputError: it cannot be read.
    """
    buffer = bytearray(BLOCK)
    view = memoryview(buffer)
    try:
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(buffer):
                for one in hashes:
                    one.update(view[:count])
                if told is not None:
                    told(count)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


def of_file(path: Path, told: Told | None = None) -> str:
    """SHA-256 of a file, in hex; see `feed` for errors."""
    made = hashlib.sha256()
    feed(path, [made], told)
    return made.hexdigest()


def of_files(paths: Mapping[str, Path], told: Told | None = None) -> dict[str, str]:
    """SHA-256 of files by the names they are given, several at a time; `told` is called from any thread.

    Raises:
        InputError: one cannot be read.
    """
    with ThreadPoolExecutor(FILES_AT_A_TIME) as pool:
        return dict(zip(paths, pool.map(lambda path: of_file(path, told), paths.values()), strict=True))
