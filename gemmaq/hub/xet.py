"""Files by Xet, the Hub's storage of chunks: hf_xet, which huggingface_hub brings along, fetches many chunks at once.

hf_xet writes into a pipe, and gemmaq reads there what it writes to disk and hashes, as it does with an answer of plain
HTTP: no byte gets past the digest, a killed run leaves the beginning of the file and nothing else, and hf_xet waits
while the disk is slow. Used are the public `XetSession` of hf_xet 1.6 and `get_hf_file_metadata`.

Only whole files come this way. hf_xet cannot write a file from its middle on, and its streams, which can start there,
hold Python's lock while they wait. So plain HTTP continues what an earlier run began, and reads headers: a few
megabytes, for which a token and a list of chunks would be two requests more.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import select
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from functools import cache
from typing import Any

from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    XetFileData,
    build_hf_headers,
    get_session,
    hf_raise_for_status,
)

from gemmaq import __version__
from gemmaq.errors import NetworkError
from gemmaq.hub import Listing, RemoteFile, guard

SMALLEST = 1 << 24
"""Bytes of a file for which it pays to ask for a list of its chunks."""
_READ = 1 << 20
_MOMENT = 0.2
"""Seconds after which a reader that waits hears that nothing came."""
_TRIES = {"client.retry_max_attempts": 3}
"""Attempts of each request: after more than half a minute of them, plain HTTP is the better way."""
_BUFFERS = {
    "reconstruction.download_buffer_size": 384_000_000,
    "reconstruction.download_buffer_perfile_size": 64_000_000,
    "reconstruction.download_buffer_limit": 640_000_000,
}
"""Bytes that hf_xet may hold: gigabytes if nobody says so."""

_failed = threading.Event()
_starting = threading.Lock()


def is_on() -> bool:
    """Whether hf_xet is installed and has not failed, and HF_HUB_DISABLE_XET does not forbid it."""
    is_allowed = not constants.HF_HUB_DISABLE_XET and not _failed.is_set()
    return is_allowed and importlib.util.find_spec("hf_xet") is not None


def give_up() -> None:
    """Use plain HTTP in this process from now on: Xet failed before the first byte of a file."""
    _failed.set()


@cache
def _session() -> Any:
    """The runtime and the connections of hf_xet, for the whole process; without telemetry."""
    from hf_xet import XetConfig, XetSession

    config = XetConfig()
    values: dict[str, object] = {"telemetry.enabled": False, **_TRIES}
    if not constants.HF_XET_HIGH_PERFORMANCE:
        values |= _BUFFERS
    known = dict(config.items())
    return XetSession(config.with_config({key: value for key, value in values.items() if key in known}))


def _find(listing: Listing, file: RemoteFile) -> XetFileData | None:
    """What Xet knows a file by, None if it is not there, or is another than the listing says."""
    if not is_on() or file.sha256 is None or file.size < SMALLEST:
        return None
    guard.install()
    url = hf_hub_url(listing.ref.repo, file.path, revision=listing.commit)
    found = get_hf_file_metadata(url, library_name="gemmaq", library_version=__version__)
    data = found.xet_file_data
    if data is None or (found.etag, found.size) != (file.etag, file.size):
        return None
    is_ours = data.refresh_route.startswith(f"{constants.ENDPOINT.rstrip('/')}/")  # it is sent the user's token
    return data if is_ours else None


def _access(data: XetFileData, headers: dict[str, str]) -> dict[str, Any]:
    """Server and token for hf_xet. It would ask for them itself, but for minutes, and deaf to an interruption."""
    response = get_session().get(data.refresh_route, headers=headers)
    hf_raise_for_status(response)
    told = response.json()
    return {"endpoint": told["casUrl"], "token": told["accessToken"], "token_expiry_unix_secs": told["exp"]}


@contextmanager
def content(listing: Listing, file: RemoteFile) -> Iterator[Iterator[bytes] | None]:
    """The bytes of a file in their order, None if it is not in Xet or too small to bother.

    Pieces have at most 1 MiB; an empty one comes whenever nothing came for a moment.

    Raises:
        NetworkError: So little came for a minute that another way may be quicker.
        Exception: Whatever hf_xet or huggingface_hub raises.
    """
    data = _find(listing, file)
    if data is None:
        yield None
        return
    from hf_xet import XetFileInfo

    headers = build_hf_headers(library_name="gemmaq", library_version=__version__)
    public = {key: value for key, value in headers.items() if key.lower() != "authorization"}
    pipe, is_started = _Pipe(), False
    try:
        with _starting:
            session = _session()
        group = session.new_file_download_group(
            **_access(data, headers),
            token_refresh_url=data.refresh_route,
            token_refresh_headers=headers,
            custom_headers=public,
        )
        result: Future[None] = Future()
        with group:
            is_started = True
            download = group.start_download_file(XetFileInfo(data.file_hash, file.size), pipe.path)
            threading.Thread(target=_finish, args=(download, result), daemon=True).start()
            yield _pieces(pipe, group, result)
    finally:
        os.close(pipe.out)
        if not is_started:
            pipe.release()


class _Pipe:
    """A pipe that hf_xet opens by the path of its end, `/dev/fd/` and a number, and writes into.

    gemmaq holds that end until the first byte, which shows that hf_xet has opened it. Where no byte ever comes, it is
    never closed: hf_xet could be about to open the number, which must not be that of another file by then.
    """

    def __init__(self) -> None:
        self.out, self._into = os.pipe()
        self._is_held = True
        self.path = f"/dev/fd/{self._into}"
        with contextlib.suppress(ImportError, AttributeError, OSError):  # Linux has it; elsewhere pipes are smaller
            import fcntl

            fcntl.fcntl(self._into, fcntl.F_SETPIPE_SZ, _READ)

    def read(self) -> bytes:
        """What is there, nothing at the end."""
        piece = os.read(self.out, _READ)
        self.release()
        return piece

    def release(self) -> None:
        """Close the end that is written into, unless that was done."""
        if self._is_held:
            self._is_held = False
            os.close(self._into)


def _finish(download: Any, result: Future[None]) -> None:
    """Wait for the end of a download."""
    try:
        download.result()
        result.set_result(None)
    except BaseException as error:
        result.set_exception(error)


def _pieces(pipe: _Pipe, group: Any, result: Future[None]) -> Iterator[bytes]:
    """What a download writes into a pipe, until its end."""
    waiting = select.poll()
    waiting.register(pipe.out, select.POLLIN)
    seen, due = 0, time.monotonic() + guard.STEP_SECONDS
    is_open = True
    while True:
        if is_open and waiting.poll(_MOMENT * 1000):
            piece = pipe.read()
            is_open = bool(piece)
            yield piece
        elif result.done() and (result.exception() or not is_open):
            return result.result()
        else:
            wait([result], 0 if is_open else _MOMENT)
            yield b""
        moved = group.progress().total_transfer_bytes_completed
        if moved - seen >= guard.STEP_BYTES:
            seen, due = moved, time.monotonic() + guard.STEP_SECONDS
        elif time.monotonic() > due:
            raise NetworkError("the servers of Xet answer too slowly")
