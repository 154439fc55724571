"""Files of known size that several threads write at once, in any order."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gemmaq.containers.layout import OutputFile

_FLUSH_SECONDS = 0.25

Wrote = Callable[[int, memoryview], None]
"""Called after bytes of tensors were written, with their offset and the bytes themselves, from any thread."""

Watch = Callable[[Path, OutputFile], Wrote]
"""Called with each file when it is created; returns a function that follows the writing."""


@dataclass(frozen=True, slots=True)
class Output:
    """An open file, and the function that is called after every write."""

    descriptor: int
    wrote: Wrote


@contextmanager
def opening(files: Iterable[tuple[Path, OutputFile]], watch: Watch) -> Iterator[list[Output]]:
    """Create every file at its full size with all bytes in place but those of tensors; in the given order."""
    outputs: list[Output] = []
    try:
        for path, file in files:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            outputs.append(Output(descriptor, watch(path, file)))
            _reserve(descriptor, file.size)
            for offset, data in ((0, file.head), *file.fixed):
                write_all(descriptor, memoryview(data), offset)
        yield outputs
    finally:
        for output in outputs:
            os.close(output.descriptor)


@contextmanager
def flushing(outputs: Sequence[Output]) -> Iterator[None]:
    """Flush files regularly while workers compute, instead of once at the end."""
    stop, failures = threading.Event(), []

    def flush() -> None:
        try:
            while not stop.wait(_FLUSH_SECONDS):
                sync(outputs)
        except OSError as error:
            failures.append(error)

    thread = threading.Thread(target=flush)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    if failures:
        raise failures[0]


def _reserve(descriptor: int, size: int) -> None:
    """Reserve space if the file system can, so that a full disk shows at once."""
    try:
        if size:
            os.posix_fallocate(descriptor, 0, size)
    except (AttributeError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise
        os.ftruncate(descriptor, size)


def sync(outputs: Sequence[Output]) -> None:
    """Flush all files to disk."""
    for output in outputs:
        os.fsync(output.descriptor)


def write_all(descriptor: int, data: memoryview, offset: int) -> None:
    """Write all bytes at an offset."""
    while len(data):
        count = os.pwrite(descriptor, data, offset)
        data, offset = data[count:], offset + count
