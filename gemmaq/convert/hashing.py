"""SHA-256 of files, in the background while artifacts are written."""

from __future__ import annotations

import hashlib
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from gemmaq.artifact.digests import BLOCK, FILES_AT_A_TIME, of_file
from gemmaq.containers.layout import OutputFile, Placement
from gemmaq.convert.outputs import Wrote
from gemmaq.errors import InputError


class _Stopped(Exception):
    """The conversion has ended, so that the digest is not needed."""


class BackgroundHasher:
    """Hashes files in the background; leaving the context stops unfinished work.

    Existing files are read a few at a time. Each file that is being written is followed by a thread of its own, tensor
    by tensor, so that little is left to read after the last one.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(FILES_AT_A_TIME)
        self._stop = threading.Event()
        self._growing: dict[Path, _Growing] = {}
        self._followers: list[threading.Thread] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for growing in self._growing.values():
            growing.wake()
        self._pool.shutdown(wait=True, cancel_futures=True)
        for thread in self._followers:
            thread.join()

    def start(self, path: Path) -> Future[str]:
        """Start to hash an existing file."""

        def check(_: int) -> None:
            if self._stop.is_set():
                raise _Stopped

        return self._pool.submit(of_file, path, check)

    def watch(self, path: Path, file: OutputFile) -> Wrote:
        """Follow a file that is being written; see `outputs.Watch`."""
        growing = self._growing[path] = _Growing(path, file, self._stop)
        if file.placements:
            thread = threading.Thread(target=growing.follow)
            self._followers.append(thread)
            thread.start()
        return growing.wrote

    def written(self, path: Path) -> str:
        """The digest of a finished file: the one of its follower, or computed now.

        Raises:
            InputError: the file cannot be read.
        """
        growing = self._growing.get(path)
        return growing.result() if growing is not None and growing.placements else of_file(path)


class _Growing:
    """A file whose tensors are finished in any order, hashed up to the first unfinished one."""

    def __init__(self, path: Path, file: OutputFile, stop: threading.Event) -> None:
        self.path = path
        self.placements = sorted(file.placements, key=lambda placement: placement.start)
        self._ends = [placement.start for placement in self.placements[1:]] + [file.size]
        self._left = {placement.tensor.name: placement.tensor.source.rows for placement in self.placements}
        self._whole = 0
        self._stop = stop
        self._changed = threading.Condition()
        self._digest: Future[str] = Future()

    def wrote(self, placement: Placement, rows: int) -> None:
        """Note that rows of a tensor were written."""
        with self._changed:
            self._left[placement.tensor.name] -= rows
            before = self._whole
            while self._whole < len(self.placements) and not self._left[self.placements[self._whole].tensor.name]:
                self._whole += 1
            if self._whole > before:
                self._changed.notify()

    def wake(self) -> None:
        """Wake the follower, so that it sees whether to stop."""
        with self._changed:
            self._changed.notify()

    def follow(self) -> None:
        """Hash finished tensors until all are."""
        digest, done, whole = hashlib.sha256(), 0, 0
        view = memoryview(b"")
        try:
            with self.path.open("rb", buffering=0) as file:
                while whole < len(self.placements):
                    with self._changed:
                        self._changed.wait_for(lambda: self._whole > whole or self._stop.is_set())  # noqa: B023
                        whole = self._whole
                    view = view or memoryview(bytearray(BLOCK))  # of many shards only those being written need one
                    while done < self._ends[whole - 1] and not self._stop.is_set():
                        count = file.readinto(view[: min(BLOCK, self._ends[whole - 1] - done)])
                        if not count:
                            raise InputError("was cut short while being written", path=self.path)
                        digest.update(view[:count])
                        done += count
                    if self._stop.is_set():
                        raise _Stopped
            self._digest.set_result(digest.hexdigest())
        except OSError as error:
            self._digest.set_exception(InputError(f"cannot be read: {error.strerror}", path=self.path))
        except (InputError, _Stopped) as error:
            self._digest.set_exception(error)

    def result(self) -> str:
        """Wait for the digest."""
        return self._digest.result()
