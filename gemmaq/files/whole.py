"""The guard of every file that is read as a whole: it is a regular file, can be read, and is no larger than its kind.

A pipe would be waited for without end, a device has no end, and a sparse file of terabytes takes no room on disk.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gemmaq.errors import InputError, NotFoundError

_LARGEST = {"tokenizer.json": 1 << 26, "tokenizer.model": 1 << 25, "model.safetensors": 1 << 27}
"""Bytes of files by name: the largest of Gemma have 35 MB and 5 MB, and a module of an embedding model 9 MB."""
_ENDINGS = {".index.json": 1 << 25}
"""The same by the end of the name: a list of the tensors of many experts in four parts each has 6 MB."""
_USUAL = 1 << 23
"""Bytes of any other: config, settings of a tokenizer, chat template, record, recipe."""


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Errors of the system while a file is opened or read, as ours.

    Raises:
        NotFoundError: It is missing.
        InputError: It cannot be read.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise NotFoundError("does not exist", path=path) from error
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", path=path) from error
    except ValueError as error:  # a name with a zero byte
        raise InputError(f"cannot be read: {error}", path=path) from error


def size_of(path: Path) -> int:
    """Bytes of a regular file.

    Raises:
        NotFoundError: It is missing.
        InputError: It is a folder, a pipe or a device, or cannot be looked at.
    """
    with reading(path):
        found = path.stat()
    if stat.S_ISDIR(found.st_mode):
        raise InputError("cannot be read: it is a folder, not a file", path=path)
    if not stat.S_ISREG(found.st_mode):
        raise InputError("cannot be read: it is no regular file", path=path)
    return found.st_size


def read_head(path: Path, size: int) -> bytes:
    """The first bytes of a file, fewer if it ends before; see `size_of` for errors."""
    size_of(path)
    with reading(path), path.open("rb") as file:
        return file.read(size)


def read_bytes(path: Path, most: int | None = None) -> bytes:
    """All bytes of a file.

    Args:
        path: The file.
        most: Bytes that it may have; None for what its name allows.

    Raises:
        NotFoundError: It is missing.
        InputError: It is no regular file, cannot be read, or is larger.
    """
    most = _allowed(path.name) if most is None else most
    size = size_of(path)
    data = read_head(path, most + 1) if size <= most else b""
    if max(size, len(data)) > most:
        raise InputError(f"is too large: it has {size:,} bytes, such a file at most {most:,}", path=path)
    return data


def _allowed(name: str) -> int:
    """Bytes that a file of that name may have."""
    of_ending = next((most for ending, most in _ENDINGS.items() if name.endswith(ending)), _USUAL)
    return _LARGEST.get(name, of_ending)
