"""SHA-256 of files, in the background while artifacts are written."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Self

from gemmaq.artifact import remembered
from gemmaq.artifact.digests import BLOCK, FILES_AT_A_TIME, Stopped, of_file
from gemmaq.artifact.origin import File
from gemmaq.artifact.remembered import Identity
from gemmaq.containers.layout import OutputFile
from gemmaq.convert.outputs import Wrote
from gemmaq.errors import InputError
from gemmaq.files.whole import reading


class SourceDigests(Enum):
    """How the digests of a source's files are found, where a download did not record them."""

    REMEMBERED = "read the files, unless an earlier run did and they did not change"
    READ = "read the files"
    NONE = "leave them out"


_known: dict[tuple[Path, Identity], str] = {}
"""Digests that this process computed: of one source several artifacts are made, or verified."""


class BackgroundHasher:
    """Hashes files in the background; leaving the context stops unfinished work.

    Existing files are read a few at a time. Files that are being written are hashed by the threads that write them, as
    far as all bytes up to there are written.
    """

    def __init__(self, sources: SourceDigests = SourceDigests.READ) -> None:
        self._sources = sources
        self._pool = ThreadPoolExecutor(FILES_AT_A_TIME)
        self._stop = threading.Event()
        self._started: dict[Path, tuple[Identity, Future[str]]] = {}
        self._growing: dict[Path, _Growing] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def start(self, path: Path) -> Future[str]:
        """Start to hash an existing file, or find the digest that is remembered; once for each path.

        Raises:
            InputError: the file cannot be read.
        """
        if path not in self._started:
            with reading(path):
                identity = Identity.of(path.stat())
            self._started[path] = identity, self._pool.submit(self._digest, path, identity)
        return self._started[path][1]

    def of_source(self, file: File) -> str | Future[str] | None:
        """The digest of a file of a source, or one that is being computed; None if it is left out."""
        if file.record is not None and file.record.sha256:
            return file.record.sha256
        return None if self._sources is SourceDigests.NONE else self.start(file.path)

    def check_unchanged(self, paths: Iterable[Path]) -> None:
        """Refuse files that changed since they were started, so that what was read is not what was hashed.

        Raises:
            InputError: naming the file.
        """
        for path in paths:
            started = self._started.get(path)
            if started is None:
                continue
            with reading(path):
                now = Identity.of(path.stat())
            if now.content != started[0].content:
                raise InputError("was changed while it was being read", "run it again when it is complete", path=path)

    def watch(self, path: Path, file: OutputFile) -> Wrote:
        """Follow a file that is being written; see `outputs.Watch`."""
        growing = self._growing[path] = _Growing(path, file, self._stop)
        return growing.wrote

    def written(self, path: Path) -> str:
        """The digest of a finished file, in hex.

        Raises:
            InputError: the file cannot be read.
        """
        growing = self._growing.get(path)
        return (growing.result() if growing is not None else None) or of_file(path)

    def _digest(self, path: Path, identity: Identity) -> str:
        """SHA-256 of a file, remembered or read."""
        may_recall, since = self._sources is SourceDigests.REMEMBERED, remembered.now()
        known = _known.get((path, identity)) or (remembered.recall(path, identity) if may_recall else None)
        if known is not None:
            return known
        digest = of_file(path, self._check)
        if identity.is_settled(since):
            _known[path, identity] = digest
        if may_recall:
            remembered.keep(path, identity, digest, since=since)
        return digest

    def _check(self, _: int) -> None:
        if self._stop.is_set():
            raise Stopped


class _Growing:
    """A file whose bytes are written in any order, hashed up to the first that is not written yet."""

    def __init__(self, path: Path, file: OutputFile, stop: threading.Event) -> None:
        self._path, self._size, self._stop = path, file.size, stop
        self._digest, self._done = hashlib.sha256(), 0
        self._written = _between_tensors(file)
        self._lock, self._is_busy = threading.Lock(), False
        self._failure: InputError | None = None

    def wrote(self, offset: int, data: memoryview) -> None:
        """Note that bytes were written; hash them, and what follows, if all before them are hashed."""
        if not len(data):
            return
        with self._lock:
            self._written[offset] = offset + len(data)
            if self._is_busy or self._failure is not None:
                return
            self._is_busy = True
        while (step := self._next(offset)) is not None:
            end, has_own = step
            try:
                self._read_back(end)
            except OSError as error:
                self._failure = InputError(f"cannot be read: {error.strerror}", path=self._path)
            except InputError as error:
                self._failure = error
            if has_own:
                self._digest.update(data)
                self._done += len(data)

    def _next(self, own: int) -> tuple[int, bool] | None:
        """The end of what can be read back now, and whether the caller's bytes follow; None if there is nothing."""
        with self._lock:
            end = self._done
            while end != own and end in self._written:
                end = self._written.pop(end)
            has_own = self._written.pop(own, None) is not None if end == own else False
            if (end == self._done and not has_own) or self._failure is not None or self._stop.is_set():
                self._is_busy = False
                return None
            return end, has_own

    def _read_back(self, end: int) -> None:
        """Hash the bytes up to `end`, which others wrote."""
        if self._done == end:
            return
        view = memoryview(bytearray(min(BLOCK, end - self._done)))
        with self._path.open("rb", buffering=0) as file:
            file.seek(self._done)
            while self._done < end and not self._stop.is_set():
                count = file.readinto(view[: end - self._done])
                if not count:
                    raise InputError("was cut short while being written", path=self._path)
                self._digest.update(view[:count])
                self._done += count

    def result(self) -> str | None:
        """The digest if all bytes were seen.

        Raises:
            InputError: the file could not be read.
        """
        if self._failure is not None:
            raise self._failure
        return self._digest.hexdigest() if self._done == self._size else None


def _between_tensors(file: OutputFile) -> dict[int, int]:
    """Start -> end of the ranges of a file that belong to no tensor: they are written first."""
    tensors = sorted(
        place
        for placement in file.placements
        for piece in placement.pieces
        for place in piece.places(0, placement.tensor.source.rows)
    )
    found, at = {}, 0
    for offset, size in (*tensors, (file.size, 0)):
        if offset > at:
            found[at] = offset
        at = offset + size
    return found
