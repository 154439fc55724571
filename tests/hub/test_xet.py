"""Files by Xet: hf_xet itself downloads from the fake Hub's server of chunks, and plain HTTP follows where it fails."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub.errors import HfHubHTTPError

import hub_xet
from fake_hub import FakeHub, Fault
from gemmaq.hub import client, guard, parse, transfer, xet
from home import Here, Settle
from repos import REPO, safetensors, tree

ONE = "model.safetensors"
SIZE = 9_000_000
"""Bytes: three xorbs."""
KEPT = 2 * hub_xet.CHUNK * hub_xet.CHUNKS
"""Bytes of the first two xorbs."""


@pytest.fixture
def files(hub: FakeHub) -> dict[str, bytes]:
    """A repository whose weights are in Xet."""
    hub.xet = True
    files = {"config.json": b"{}\n", ONE: safetensors(SIZE, 1)}
    hub.add(REPO, files)
    return files


@pytest.fixture
def here(hub: FakeHub, files: dict[str, bytes], settle: Settle, monkeypatch: pytest.MonkeyPatch) -> Iterator[Here]:
    """This process with Xet on, for files from 1 MB, and with a client that does not try again."""
    monkeypatch.setattr(xet, "SMALLEST", 1 << 20)
    monkeypatch.setattr(xet, "_TRIES", {"client.retry_max_attempts": 0})
    monkeypatch.setattr(xet, "_failed", threading.Event())
    xet._session.cache_clear()
    yield settle(hub, "hf_read")
    xet._session.cache_clear()


def by_xet(hub: FakeHub) -> int:
    """Bytes of chunks that were sent."""
    return sum(record.sent for record in hub.requests if record.path.startswith("/xorbs/"))


def plainly(hub: FakeHub) -> list[str | None]:
    """The ranges of the weights that were asked for by plain HTTP."""
    found = [record for record in hub.requests if record.method == "GET" and "/xorbs/" not in record.path]
    return [record.range for record in found if record.host == "cdn" and ONE in record.path]


def check(here: Here, files: dict[str, bytes]) -> None:
    assert tree(here.run("pull", REPO, "-q").stdout.strip()) == files
    assert here.partials() == []


def test_chunks_make_the_file(hub: FakeHub, here: Here, files: dict[str, bytes]) -> None:
    check(here, files)
    assert by_xet(hub) >= len(files[ONE]) and plainly(hub) == []
    tokens = {(record.host, record.token) for record in hub.requests}
    assert tokens <= {("hub", "hf_read"), ("cdn", hub_xet.TOKEN), ("cdn", None)}, "the user's token went elsewhere"
    assert not any("telemetry" in record.path for record in hub.requests)


def test_users_can_do_without(hub: FakeHub, files: dict[str, bytes], here: Here, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gemmaq", "pull", REPO, "-q"]
    env = hub.env(tmp_path / "other") | {"HF_HUB_DISABLE_XET": "1"}
    subprocess.run(command, check=True, env=env, timeout=60, stdout=subprocess.DEVNULL)
    assert by_xet(hub) == 0 and plainly(hub) == [None]
    assert not any(record.method == "HEAD" for record in hub.requests)


def test_without_the_library(
    hub: FakeHub, here: Here, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    check(here, files)
    assert by_xet(hub) == 0 and plainly(hub) == [None]


@pytest.mark.parametrize("is_small", [True, False])
def test_small_files_and_repositories_without_xet(
    hub: FakeHub, here: Here, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, is_small: bool
) -> None:
    if is_small:
        monkeypatch.setattr(xet, "SMALLEST", SIZE + 1000)
    else:
        hub.xet = False
    check(here, files)
    assert by_xet(hub) == 0 and plainly(hub) == [None]


def test_what_was_begun_is_continued_by_plain_http(hub: FakeHub, here: Here, files: dict[str, bytes]) -> None:
    blob = hub.commit(REPO).files[ONE]
    partial = here.root(REPO) / "blobs" / f"{blob.sha256}.gemmaq.incomplete"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(files[ONE][:5_000_000])
    check(here, files)
    assert by_xet(hub) == 0 and plainly(hub) == ["bytes=5000000-"]


@pytest.mark.parametrize(
    "fault",
    [
        Fault("reconstructions", "status", status=404, times=None),
        Fault("reconstructions", "status", status=401, times=None),
        Fault("reconstructions", "status", times=None),
        Fault("xet-read-token", "status", status=404, times=None),
        Fault("xet-read-token", "lost", times=None),
        Fault("resolve", "status", method="HEAD", status=500, times=None),
        Fault("xorbs", "status", status=403, times=None),
    ],
    ids=lambda fault: f"{fault.match} {fault.kind} {fault.status}",
)
def test_plain_http_replaces_a_broken_xet(hub: FakeHub, here: Here, files: dict[str, bytes], fault: Fault) -> None:
    hub.faults.append(fault)
    check(here, files)
    assert plainly(hub) == [None]
    assert not xet.is_on(), "the next file would wait for the same failure"


def test_plain_http_continues_where_xet_fails(hub: FakeHub, here: Here, files: dict[str, bytes]) -> None:
    late = [
        Fault("xorbs.*/2", "slow", rate=100_000, times=None),
        Fault("xorbs.*/2", "cut", after_bytes=60_000, times=None),
    ]
    hub.faults.extend(late)
    check(here, files)
    assert plainly(hub) == [f"bytes={KEPT}-"]
    assert xet.is_on()


def test_a_wrong_byte_is_found(hub: FakeHub, here: Here, files: dict[str, bytes]) -> None:
    hub.faults.append(Fault("xorbs.*/1", "flip", offset=5_000_000))
    check(here, files)
    assert hub.faults[0].hits == 1 and plainly(hub) == [None]


def test_a_wrong_byte_of_both_ways_is_refused(hub: FakeHub, here: Here, files: dict[str, bytes]) -> None:
    hub.faults.append(Fault(ONE, "flip", offset=5_000_000, host="cdn", times=None))
    assert "do not match the digest" in here.run("pull", REPO, "-q", code=8).stderr
    assert here.partials() == [] and not list(here.root(REPO).rglob(hub.commit(REPO).files[ONE].etag))


def test_a_stalled_xet_is_given_up(
    hub: FakeHub, here: Here, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "STEP_SECONDS", 0.5)
    hub.faults.append(Fault("xorbs.*/2", "stall", after_bytes=100_000, times=None))
    begun = time.monotonic()
    check(here, files)
    assert plainly(hub) == [f"bytes={KEPT}-"] and time.monotonic() - begun < 10


def test_an_interrupted_reader_does_not_wait(hub: FakeHub, here: Here, tmp_path: Path) -> None:
    hub.faults.append(Fault("xorbs", "stall", after_bytes=100_000, times=None))
    ref, stop = parse(REPO), threading.Event()
    assert ref is not None
    listing = client.listing(ref)
    file = listing.find(ONE)
    assert file is not None
    threading.Timer(0.5, stop.set).start()
    begun = time.monotonic()
    with pytest.raises(transfer.Stopped):
        transfer.fetch(listing, file, tmp_path / "file", progress=lambda _: None, stop=stop)
    assert time.monotonic() - begun < 5


def test_the_token_stays_with_the_hub(
    hub: FakeHub, here: Here, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {"X-Xet-Hash": "0" * 64, "Link": f'<{hub.cdn}/token>; rel="xet-auth"'}
    monkeypatch.setattr(hub_xet, "headers", lambda *_: told)
    check(here, files)
    assert by_xet(hub) == 0 and not any("/token" in record.path for record in hub.requests)


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_run_leaves_a_beginning(
    hub: FakeHub, here: Here, files: dict[str, bytes], sign: signal.Signals
) -> None:
    files[ONE] = safetensors(20_000_000, 1)  # the process has the usual bound of small files
    hub.add(REPO, files)
    hub.faults.append(Fault("xorbs.*/2", "stall", after_bytes=100_000, times=None))
    command = [sys.executable, "-m", "gemmaq", "pull", REPO, "-q"]
    etag = hub.commit(REPO).files[ONE].etag
    partial = here.root(REPO) / "blobs" / f"{etag}.gemmaq.incomplete"
    with subprocess.Popen(command, env=hub.env(here.home), stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while not (partial.exists() and partial.stat().st_size == KEPT) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(sign)
    assert partial.read_bytes() == files[ONE][:KEPT]
    assert not any(path.name in (etag, ONE) for path in here.root(REPO).rglob("*"))
    hub.reset()
    check(here, files)
    assert by_xet(hub) == 0 and plainly(hub) == [f"bytes={KEPT}-"]


def pipes() -> int:
    """Open ends of pipes of this process."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the one of the folder itself
            found.append(os.readlink(f"/proc/self/fd/{number}"))
    return sum(name.startswith("pipe:") for name in found)


def settled(count: int) -> bool:
    """Whether so many ends are open, soon: hf_xet closes its own later."""
    deadline = time.monotonic() + 5
    while pipes() != count and time.monotonic() < deadline:
        time.sleep(0.02)
    return pipes() == count


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="this system does not list open files")
def test_open_ends_of_pipes(hub: FakeHub, here: Here, files: dict[str, bytes]) -> None:
    ref = parse(REPO)
    assert ref is not None
    listing = client.listing(ref)
    file = listing.find(ONE)
    assert file is not None
    with xet.content(listing, file) as pieces:
        assert pieces is not None and b"".join(pieces) == files[ONE]
    count = pipes()
    for _ in range(2):
        with xet.content(listing, file) as pieces:
            assert pieces is not None and b"".join(pieces) == files[ONE]
        assert settled(count)
        hub.faults.append(Fault("xorbs.*/2", "slow", rate=200_000, times=None))
        hub.faults.append(Fault("xorbs.*/2", "cut", after_bytes=60_000, times=None))
        with pytest.raises(RuntimeError), xet.content(listing, file) as pieces:
            assert pieces is not None and b"".join(pieces)
        hub.faults[:] = [Fault("xet-read-token", "status", status=404)]
        with pytest.raises(HfHubHTTPError), xet.content(listing, file):
            pass
        hub.reset()
        assert settled(count)
    hub.faults.append(Fault("reconstructions", "status", status=404, times=None))
    with pytest.raises(RuntimeError), xet.content(listing, file) as pieces:
        assert pieces is not None and b"".join(pieces)
    assert settled(count + 1), "hf_xet may open the number of a pipe that it has not written into"
