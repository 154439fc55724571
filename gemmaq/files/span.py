"""Positioned reads from files, and from files that are cut in pieces."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from gemmaq.errors import InputError
from gemmaq.files import lfs
from gemmaq.files.whole import read_head, reading, size_of


@dataclass(frozen=True, slots=True)
class FileSpan:
    """A file, or several that make one when joined (a GGUF that a package had to cut in pieces).

    Attributes:
        paths: The files in order.
        starts: Offset of each file in the whole.
        size: Bytes of the whole.
    """

    paths: tuple[Path, ...]
    starts: tuple[int, ...]
    size: int

    @classmethod
    def of(cls, *paths: Path) -> Self:
        """The span of these files, in this order.

        Raises:
            NotFoundError: One is missing.
            InputError: One cannot be read.
        """
        starts, size = [], 0
        for path in paths:
            starts.append(size)
            own = size_of(path)
            size += own
            if own <= lfs.MAX_BYTES:
                lfs.refuse(read_head(path, own), path)
        return cls(paths, tuple(starts), size)

    def __str__(self) -> str:
        return str(self.paths[0])

    @property
    def name(self) -> str:
        """Name of the first file."""
        return self.paths[0].name


class Reader:
    """Positioned reads from any number of spans, safe from several threads.

    Files are opened on first use and closed with the reader.
    """

    def __init__(self) -> None:
        self._descriptors: dict[Path, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors.clear()

    def open(self, spans: Sequence[FileSpan]) -> None:
        """Open files ahead of reads by several threads.

        Raises:
            NotFoundError: One is missing.
            InputError: One cannot be read.
        """
        for path in (path for span in spans for path in span.paths):
            self._open(path)

    def _open(self, path: Path) -> int:
        if path not in self._descriptors:
            size_of(path)
            with reading(path):
                self._descriptors[path] = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        return self._descriptors[path]

    def expect(self, span: FileSpan, offset: int, length: int) -> None:
        """Tell the system that these bytes will be read soon, so that it begins to; some systems take no such hints.

        Raises:
            NotFoundError, InputError: see `open`.
        """
        if not hasattr(os, "posix_fadvise"):
            return
        for path, start, stop in zip(span.paths, span.starts, (*span.starts[1:], span.size), strict=True):
            first, last = max(offset, start), min(offset + length, stop)
            if first < last:
                with suppress(OSError):  # it is only a hint
                    os.posix_fadvise(self._open(path), first - start, last - first, os.POSIX_FADV_WILLNEED)

    def into(self, span: FileSpan, offset: int, target: memoryview) -> None:
        """Fill `target` with the bytes from `offset` on.

        Raises:
            InputError: The file ends early, or the disk fails.
        """
        for path, start, stop in zip(span.paths, span.starts, (*span.starts[1:], span.size), strict=True):
            while len(target) and start <= offset < stop:
                try:
                    count = os.preadv(self._open(path), [target[: stop - offset]], offset - start)
                except OSError as error:
                    raise InputError(f"cannot be read: {error.strerror}", path=path) from error
                if count == 0:
                    raise InputError(f"ends at byte {offset - start}; it was cut short while being read", path=path)
                target, offset = target[count:], offset + count
        if len(target):
            raise InputError(f"is truncated: {len(target)} more bytes are needed", path=span)

    def bytes(self, span: FileSpan, offset: int, length: int) -> bytearray:
        """The bytes `offset` to `offset + length`; see `into` for errors."""
        data = bytearray(length)
        self.into(span, offset, memoryview(data))
        return data
