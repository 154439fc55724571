"""Downloads one file from the Hub, continues what an earlier run has of it, and checks its digest."""

from __future__ import annotations

import hashlib
import os
import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from gemmaq.errors import GemmaqError, NetworkError, OutputError, VerificationError
from gemmaq.hub import Listing, RemoteFile, client, retry, xet
from gemmaq.hub.allowance import RefusedError
from gemmaq.hub.errors import translate
from gemmaq.progress import Progress, ProgressCallback

_BATCH = 1 << 20
_SECONDS = 1.0
"""Bytes and seconds between two writes: a killed process loses no more."""
_QUEUED = 8
"""Batches that wait for the thread that hashes."""
_REPEATS = 2
"""Downloads of a file whose digest is wrong."""
_WRONG_SIZES = 3
"""Answers with a wrong size before the file counts as changed."""
_ADVANCE = 1 << 16
"""Bytes that an attempt has to deliver, or failures of those before it still count."""
_SHORT_WAIT = 0.1
"""Seconds before continuing after a connection that delivered something."""


class Stopped(Exception):
    """The download was stopped: another file failed, or the user interrupted it."""


@dataclass(frozen=True, slots=True)
class _Task:
    """A file to download.

    Attributes:
        listing: Its repository at a commit.
        file: The file.
        path: Local file that grows.
        progress: Called after every write.
        stop: Set to give up.
    """

    listing: Listing
    file: RemoteFile
    path: Path
    progress: ProgressCallback
    stop: threading.Event

    def report(self, size: int) -> None:
        """Report the bytes on disk."""
        self.progress(Progress("downloading", size, self.file.size, "bytes", item=self.file.path))


def fetch(listing: Listing, file: RemoteFile, path: Path, *, progress: ProgressCallback, stop: threading.Event) -> int:
    """Download a file, or the rest of it, and check its digest.

    Xet is the first choice for a file of which nothing is there yet; plain HTTP continues where Xet fails.

    Args:
        listing: The repository at a commit.
        file: A file of it.
        path: Local file that grows; what it holds already is taken for the beginning of the file.
        progress: Called every megabyte, over a slow connection every second.
        stop: Set to give up.

    Returns:
        Bytes received over the network.

    Raises:
        VerificationError: Size or digest differs from the listing; bytes with a wrong digest are deleted.
        NetworkError, AuthError, NotFoundError: See `errors.translate`; the local file stays, to be continued.
        OutputError: The disk is full or not writable; the local file stays.
        Stopped: `stop` was set; the local file stays.
    """
    task = _Task(listing, file, path, progress, stop)
    received = 0
    for repeat in range(_REPEATS):
        digest = _Digest(file)
        try:
            received += _grow(task, digest, is_first=repeat == 0)
        finally:
            is_right = digest.matches()
        if is_right:
            return received
        path.unlink(missing_ok=True)
    raise VerificationError(
        f"{listing.ref}: the bytes of {file.path} do not match the digest {file.etag[:12]} that the Hub lists",
        "they were downloaded twice and deleted; the repository or a proxy is broken",
    )


class _Digest:
    """Digest of a growing file, computed on its own thread: sha256 of a large file, git's sha1 of a small one."""

    def __init__(self, file: RemoteFile) -> None:
        self._expected = file.etag
        self._hash = hashlib.sha256() if file.sha256 else hashlib.sha1(f"blob {file.size}\0".encode())
        self._queue: queue.Queue[list[bytes] | None] = queue.Queue(_QUEUED)
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while (batch := self._queue.get()) is not None:
            for chunk in batch:
                self._hash.update(chunk)

    def add(self, batch: list[bytes]) -> None:
        """Hash the next bytes."""
        self._queue.put(batch)

    def add_file(self, path: Path) -> int:
        """Hash the bytes of a local file, if it exists, and count them."""
        count = 0
        if path.is_file():
            with path.open("rb") as source:
                while chunk := source.read(_BATCH):
                    self.add([chunk])
                    count += len(chunk)
        return count

    def matches(self) -> bool:
        """Whether the digest is the expected one. To be called once, after the last bytes."""
        self._queue.put(None)
        self._thread.join()
        return self._hash.hexdigest() == self._expected


def _grow(task: _Task, digest: _Digest, *, is_first: bool) -> int:
    """Append to the local file until it has its size; bytes received. Only the first attempt is by Xet."""
    file, path = task.file, task.path
    if path.is_file() and path.stat().st_size > file.size:
        path.unlink()
    size = initial = digest.add_file(path)
    task.report(size)
    try:
        out = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    except OSError as error:
        raise OutputError(f"cannot be written: {error.strerror}", path=path) from error
    failures = wrong_sizes = 0
    try:
        if is_first and not size:
            size = _by_xet(task, out, digest)
        while size < file.size:
            before = size
            try:
                with client.content(task.listing, file, start=size) as response:
                    _check_size(task, response, size)
                    skip = size if response.status_code == 200 else 0  # a server without ranges sends all again
                    size = _receive(task, response.iter_raw(), out, digest=digest, size=size, skip=skip)
                if size < file.size:
                    raise NetworkError(f"the connection ended after {size:,} of {file.size:,} bytes of {file.path}")
            except (Stopped, OutputError):
                raise
            except VerificationError:
                wrong_sizes += 1
                if wrong_sizes == _WRONG_SIZES or task.stop.wait(retry.FIRST_WAIT):
                    raise
            except Exception as error:
                size = os.fstat(out).st_size
                advanced = size - before >= _ADVANCE
                failures = 0 if advanced else failures
                wait = _wait(error, failures, advanced=advanced)
                failures += 1
                if wait is None:
                    raise _resumable(translate(error, task.listing.ref, file.path), size) from error
                if task.stop.wait(wait):
                    raise Stopped from error
    finally:
        is_empty = os.fstat(out).st_size == 0
        os.close(out)
        if is_empty and file.size:
            path.unlink()
    return size - initial


def _by_xet(task: _Task, out: int, digest: _Digest) -> int:
    """Receive the file by Xet; bytes of it on disk, fewer than all if Xet fails, 0 if it does not have the file."""
    try:
        with xet.content(task.listing, task.file) as pieces:
            return 0 if pieces is None else _receive(task, pieces, out, digest=digest, size=0, skip=0)
    except (Stopped, OutputError):
        raise
    except Exception:  # of any kind: hf_xet is another's program; if plain HTTP fails as well, its errors say why
        size = os.fstat(out).st_size
        if not size:
            xet.give_up()
        return size


def _wait(error: Exception, failures: int, *, advanced: bool) -> float | None:
    """Seconds before the next attempt, None to give up; `advanced`: the last one delivered something."""
    if isinstance(error, RefusedError):
        return None
    if not isinstance(error, NetworkError):
        wait = retry.wait_before_retry(error, failures)
        is_cut = advanced and isinstance(error, httpx2.TransportError)
        return _SHORT_WAIT if is_cut and wait is not None else wait
    if advanced:
        return _SHORT_WAIT
    return retry.FIRST_WAIT if failures + 1 < retry.ATTEMPTS else None


def _resumable(error: GemmaqError, size: int) -> GemmaqError:
    """The error, its hint extended if some of the file is on disk."""
    if size:
        error.hint = f"{error.hint}; {_KEPT}" if error.hint else _KEPT
    return error


_KEPT = "the next run continues the download"


def _check_size(task: _Task, response: Any, start: int) -> None:
    """Compare the size of the file in the answer with that in the listing.

    Raises:
        VerificationError: They differ.
        NetworkError: The answer holds another range than the one that was asked for.
    """
    file = task.file
    if response.status_code == 206:
        sent, _, total = response.headers.get("Content-Range", "").partition("/")
        if total.isdigit() and int(total) != file.size:
            raise _wrong_size(task, int(total))
        if not sent.startswith(f"bytes {start}-"):
            raise NetworkError(f"the server sent another range of {file.path} than it was asked for")
    else:
        length = response.headers.get("Content-Length", "")
        if length.isdigit() and int(length) != file.size:
            raise _wrong_size(task, int(length))


def _wrong_size(task: _Task, size: int) -> VerificationError:
    return VerificationError(
        f"{task.listing.ref}: {task.file.path} has {size:,} bytes, the Hub lists {task.file.size:,}",
        "do not trust this repository",
    )


def _receive(task: _Task, pieces: Iterator[bytes], out: int, *, digest: _Digest, size: int, skip: int) -> int:
    """Write what arrives, a batch at a time, but not its first `skip` bytes.

    `size` is that of the local file before, the result that after.
    """
    batch: list[bytes] = []
    batched, due = 0, time.monotonic() + _SECONDS

    def flush() -> None:
        nonlocal size, batched, due
        data, batched, due = list(batch), 0, time.monotonic() + _SECONDS
        batch.clear()
        size += _write(out, data)
        digest.add(data)
        task.report(size)

    try:
        for piece in pieces:
            chunk = piece
            if skip:
                chunk, skip = piece[skip:], max(0, skip - len(piece))
            if size + batched + len(chunk) > task.file.size:
                raise VerificationError(
                    f"{task.file.path} goes on after its {task.file.size:,} bytes", "the server is broken"
                )
            batch.append(chunk)
            batched += len(chunk)
            if batched >= _BATCH or time.monotonic() > due:
                flush()
            if task.stop.is_set():
                raise Stopped
    finally:
        if batched:
            flush()
    return size


def _write(out: int, data: list[bytes]) -> int:
    """Write all data; number of its bytes."""
    total = sum(map(len, data))
    try:
        written = os.writev(out, data) if hasattr(os, "writev") else 0
        if written < total:
            rest = memoryview(b"".join(data))[written:]
            while rest:
                rest = rest[os.write(out, rest) :]
    except OSError as error:
        raise OutputError(f"writing failed: {error.strerror}", f"free space and run it again; {_KEPT}") from error
    return total
