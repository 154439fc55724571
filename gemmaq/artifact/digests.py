"""SHA-256 of files, several at a time."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Protocol

from gemmaq.errors import InputError
from gemmaq.files.whole import size_of

BLOCK = 1 << 20
"""Bytes that are read at a time."""
FILES_AT_A_TIME = 4

OnRead = Callable[[int], None]
"""Called with the size of every block, from any thread."""


class Hash(Protocol):
    """A hash object of hashlib."""

    def update(self, data: memoryview, /) -> None:
        """Hash more bytes."""


def feed(path: Path, hashes: Sequence[Hash], on_read: OnRead | None = None) -> None:
    """Read a file and update hashes with its bytes.

    Raises:
        InputError: It cannot be read.
    """
    if os.path.exists(path):
        size_of(path)  # refuses a pipe or a device, which may have no end
    buffer = bytearray(BLOCK)
    view = memoryview(buffer)
    try:
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(buffer):
                for state in hashes:
                    state.update(view[:count])
                if on_read is not None:
                    on_read(count)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", path=path) from error


def of_file(path: Path, on_read: OnRead | None = None) -> str:
    """SHA-256 of a file in hex; see `feed` for errors."""
    state = hashlib.sha256()
    feed(path, [state], on_read)
    return state.hexdigest()


class Stopped(Exception):
    """The digests are not needed any more."""


def of_files(
    paths: Mapping[str, Path], on_read: OnRead | None = None, stop: threading.Event | None = None
) -> dict[str, str]:
    """SHA-256 of several files in hex, by the keys of `paths`.

    Args:
        paths: The files.
        on_read: Called with the size of every block.
        stop: Set by who needs no digests any more.

    Raises:
        InputError: One cannot be read.
        Stopped: `stop` was set.
    """
    ended = stop or threading.Event()

    def read(count: int) -> None:
        if ended.is_set():
            raise Stopped
        if on_read is not None:
            on_read(count)

    with ThreadPoolExecutor(FILES_AT_A_TIME) as pool:
        pending = {name: pool.submit(of_file, path, read) for name, path in paths.items()}
        try:
            for digest in as_completed(pending.values()):
                digest.result()
        except BaseException:
            ended.set()  # leaving the pool waits for its threads, and a file may take minutes
            raise
    return {name: digest.result() for name, digest in pending.items()}
