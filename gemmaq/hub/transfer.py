"""One file from the Hub, onto the end of what an earlier run got of it, and its digest checked."""

from __future__ import annotations

import hashlib
import os
import queue
import threading
import time
from pathlib import Path
from typing import Any

from gemmaq.errors import NetworkError, OutputError, VerificationError
from gemmaq.hub import Listing, RemoteFile, client
from gemmaq.progress import Progress, ProgressCallback

_BATCH = 1 << 20
_SECONDS = 1.0
"""Bytes and time between two writes: what a killed process loses."""
_QUEUED = 8
_REPEATS = 2
"""Times a file is fetched anew when its digest is wrong."""
_LIES = 3
"""Times a size is believed to be a slip of the server's."""


class Stopped(Exception):
    """Another file failed, or the user asked for it."""


def fetch(listed: Listing, file: RemoteFile, path: Path, *, progress: ProgressCallback, stop: threading.Event) -> int:
    """Fetch a file, or what is missing of it, and check its digest.

    Args:
        listed: the repository at its commit.
        file: of it.
        path: where its bytes grow; what is there already is taken to be their beginning.
        progress: told every megabyte, of a slow connection every second.
        stop: set where to give up; what was fetched is kept.

    Returns:
        bytes that came over the network.

    Raises:
        VerificationError: its size or digest is not what the Hub says; nothing of a wrong digest is kept.
        NetworkError, AuthError, NotFoundError: see `client.translate`; what was fetched is kept.
        OutputError: the disk is full or not writable.
        Stopped: as asked.
    """
    received = 0
    for _ in range(_REPEATS):
        digest = _Digest(file)
        try:
            received += _grow(listed, file, path, digest, progress, stop)
        finally:
            right = digest.result()
        if right:
            return received
        path.unlink(missing_ok=True)
    raise VerificationError(
        f"{listed.ref}: the bytes of {file.path} are not those of its digest {file.etag[:12]}",
        "they were fetched twice and thrown away; the repository or a proxy is broken",
    )


class _Digest:
    """The digest of a growing file, on a thread of its own: sha256 of a large one, git's sha1 of a small one."""

    def __init__(self, file: RemoteFile) -> None:
        self._wanted = file.etag
        self._state = hashlib.sha256() if file.sha256 else hashlib.sha1(f"blob {file.size}\0".encode())
        self._queue: queue.Queue[list[bytes] | None] = queue.Queue(_QUEUED)
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while (batch := self._queue.get()) is not None:
            for chunk in batch:
                self._state.update(chunk)

    def add(self, batch: list[bytes]) -> None:
        """The next bytes."""
        self._queue.put(batch)

    def result(self) -> bool:
        """Whether it is the digest wanted; to be called once, after which nothing more is added."""
        self._queue.put(None)
        self._thread.join()
        return self._state.hexdigest() == self._wanted

    def start(self, path: Path) -> int:
        """Take in the bytes that are there; how many."""
        count = 0
        if path.is_file():
            with path.open("rb") as source:
                while chunk := source.read(_BATCH):
                    self.add([chunk])
                    count += len(chunk)
        return count


def _grow(
    listed: Listing, file: RemoteFile, path: Path, digest: _Digest, progress: ProgressCallback, stop: threading.Event
) -> int:
    """Append to the file until it has its size; the bytes that came."""
    if path.is_file() and path.stat().st_size > file.size:
        path.unlink()
    have = began = digest.start(path)
    progress(Progress("downloading", have, file.size, "bytes", item=file.path))
    failures = lies = 0
    try:
        out = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}") from error
    try:
        while have < file.size:
            before = have
            try:
                with client.content(listed, file, have) as response:
                    _check_size(listed, file, response, have)
                    have = _receive(response, file, out, have, digest, progress, stop)
                if have < file.size:
                    raise NetworkError(f"the connection ended after {have:,} of {file.size:,} bytes of {file.path}")
            except (Stopped, OutputError):
                raise
            except VerificationError:
                lies += 1
                if lies == _LIES or stop.wait(client.FIRST_WAIT):
                    raise
            except Exception as error:
                have = os.fstat(out).st_size
                failures = 0 if have > before else failures
                wait = 0.1 if isinstance(error, NetworkError) and have > before else client.patience(error, failures)
                failures += 1
                if wait is None and isinstance(error, NetworkError) and failures < client.ATTEMPTS:
                    wait = client.FIRST_WAIT
                if wait is None:
                    raise client.translate(error, listed.ref, file.path) from error
                if stop.wait(wait):
                    raise Stopped from error
    finally:
        nothing = os.fstat(out).st_size == 0
        os.close(out)
        if nothing and file.size:
            path.unlink()
    return have - began


def _check_size(listed: Listing, file: RemoteFile, response: Any, start: int) -> None:
    """Compare what the server says of the file with what the listing says.

    Raises:
        VerificationError: they differ.
    """
    if response.status_code == 206:
        said, _, total = response.headers.get("Content-Range", "").partition("/")
        if total.isdigit() and int(total) != file.size:
            raise _lie(listed, file, int(total))
        if not said.startswith(f"bytes {start}-"):
            raise NetworkError(f"the server sent another part of {file.path} than it was asked for")
    else:
        length = response.headers.get("Content-Length", "")
        encoded = response.headers.get("Content-Encoding", "identity") != "identity"
        if length.isdigit() and not encoded and int(length) != file.size:
            raise _lie(listed, file, int(length))


def _lie(listed: Listing, file: RemoteFile, size: int) -> VerificationError:
    return VerificationError(
        f"{listed.ref}: {file.path} has {size:,} bytes, the Hub's list says {file.size:,}",
        "do not trust this repository",
    )


def _receive(
    response: Any,
    file: RemoteFile,
    out: int,
    have: int,
    digest: _Digest,
    progress: ProgressCallback,
    stop: threading.Event,
) -> int:
    """Write what arrives, a batch at a time; bytes in the file afterwards."""
    skip = have if response.status_code == 200 else 0  # a server without ranges sends everything again
    batch: list[bytes] = []
    size, due = 0, time.monotonic() + _SECONDS

    def flush() -> None:
        nonlocal have, size, due
        data, size, due = list(batch), 0, time.monotonic() + _SECONDS
        batch.clear()
        have += _write(out, data)
        digest.add(data)
        progress(Progress("downloading", have, file.size, "bytes", item=file.path))

    try:
        for arrived in client.pieces(response):
            chunk = arrived
            if skip:
                chunk, skip = arrived[skip:], max(0, skip - len(arrived))
            if have + size + len(chunk) > file.size:
                raise VerificationError(f"{file.path} goes on after its {file.size:,} bytes", "the server is broken")
            batch.append(chunk)
            size += len(chunk)
            if size >= _BATCH or time.monotonic() > due:
                flush()
            if stop.is_set():
                raise Stopped
    finally:
        if size:
            flush()
    return have


def _write(out: int, data: list[bytes]) -> int:
    """Write all of it; how much that is."""
    whole = sum(map(len, data))
    try:
        written = os.writev(out, data) if hasattr(os, "writev") else 0
        if written < whole:
            rest = memoryview(b"".join(data))[written:]
            while rest:
                rest = rest[os.write(out, rest) :]
    except OSError as error:
        raise OutputError(
            f"writing failed: {error.strerror}", "free space and run it again; what was fetched is kept"
        ) from error
    return whole
