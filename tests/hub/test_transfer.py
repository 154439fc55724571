"""Every way a transfer can go wrong: what arrives in the end is right, and nothing is fetched twice for nothing."""

from __future__ import annotations

import errno
import itertools
import os
import random
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

import httpx2
import huggingface_hub
import pytest
from huggingface_hub import constants

from fake_hub import FakeHub, Fault
from gemmaq.hub import client, guard, retry
from home import Here
from repos import REPO, safetensors, shards, tree

BATCH = 1 << 20
"""What is written to disk at a time: a killed process loses less than that of each file under way."""
ONE = "model.safetensors"
CDN = "cdn"


def one(size: int, seed: int = 1) -> dict[str, bytes]:
    """A repository of a single weight file."""
    return {"config.json": b"{}\n", ONE: safetensors(size, seed)}


def weights(sent: dict[str, int]) -> int:
    """Bytes of weight files among those sent."""
    return sum(size for name, size in sent.items() if name.endswith(".safetensors"))


def size_of(files: dict[str, bytes]) -> int:
    return sum(len(data) for name, data in files.items() if name.endswith(".safetensors"))


def check(here: Here, files: dict[str, bytes], snapshot: str) -> None:
    """All of it is there, right, and nothing else is."""
    assert tree(snapshot) == files
    assert here.partials() == []
    blobs = here.root(REPO) / "blobs"
    assert sorted(path.stat().st_size for path in blobs.iterdir()) == sorted(map(len, files.values()))


@pytest.mark.parametrize("seed", range(60))
def test_cut_at_random_places(hub: FakeHub, here: Here, seed: int) -> None:
    draw = random.Random(seed)
    files = shards(draw.randint(2, 5), draw.randrange(200_000, 2_500_000))
    hub.add(REPO, files)
    for name, data in files.items():
        for number in range(draw.randint(0, 2)):
            at = draw.choice((0, 1, draw.randrange(len(data)), draw.randrange(len(data)), len(data) - 1))
            kind = draw.choice(("cut", "cut", "reset"))
            hub.faults.append(Fault(f"{name}$", kind, skip=number, after_bytes=at, method="GET"))
    hub.faults.append(Fault("api/models", draw.choice(("cut", "reset", "lost")), after_bytes=draw.randrange(500)))
    check(here, files, here.run("pull", REPO, "-q").stdout.strip())
    broken = [fault for fault in hub.faults if fault.hits]
    assert broken
    assert weights(hub.sent) <= size_of(files) + 65_536 * len(broken), "bytes that had arrived came again"


def test_cut_connections_are_continued_at_once(hub: FakeHub, here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_WAIT", 60.0)
    files = one(9_000_000)
    hub.add(REPO, files)
    hub.faults.append(Fault(ONE, "cut", after_bytes=5_000_000, times=1, host=CDN))
    hub.faults.append(Fault(ONE, "cut", after_bytes=1_000_000, times=2, skip=1, host=CDN))
    begun = time.monotonic()
    check(here, files, here.run("pull", REPO, "-q").stdout.strip())
    assert sum(fault.hits for fault in hub.faults) == 3 and time.monotonic() - begun < 30


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_bursts_of_errors(hub: FakeHub, here: Here, status: int) -> None:
    files = shards(3, 150_000)
    hub.add(REPO, files)
    for match in ("api/models", "resolve/.*index", "resolve/.*00001-of"):
        hub.faults.append(Fault(match, "status", status=status, times=3))
    hub.faults.append(Fault("00002-of", "status", status=status, times=4, host=CDN))
    hub.faults.append(Fault("00003-of", "status", status=status, times=None, chance=0.4, host=CDN))
    check(here, files, here.run("pull", REPO, "-q").stdout.strip())
    assert [fault.hits for fault in hub.faults][:4] == [3, 3, 3, 4]


@pytest.mark.parametrize(("match", "host"), [("api/models", "hub"), (ONE, "cdn")])
def test_retry_after_is_obeyed(hub: FakeHub, here: Here, match: str, host: str) -> None:
    hub.add(REPO, one(100_000))
    hub.faults.append(Fault(match, "status", status=429, retry_after=1, host=host))
    here.run("pull", REPO, "-q")
    first, second = [record for record in hub.requests if record.host == host and match in record.path][:2]
    assert (first.status, second.status) == (429, 200)
    assert 0.9 <= second.started - first.finished < 2.5  # its end is noted after the answer has gone


def test_retry_after_is_bounded(hub: FakeHub, here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "_LONGEST_WAIT", 0.2)
    files = one(100_000)
    hub.add(REPO, files)
    hub.faults.append(Fault("api/models", "status", status=429, retry_after=3600))
    hub.faults.append(Fault(ONE, "status", status=503, retry_after=3600, host=CDN))
    begun = time.monotonic()
    check(here, files, here.run("pull", REPO, "-q").stdout.strip())
    assert time.monotonic() - begun < 10 and [fault.hits for fault in hub.faults] == [1, 1]


def test_slow(hub: FakeHub, here: Here) -> None:
    files = shards(4, 300_000)
    hub.add(REPO, files)
    hub.faults.append(Fault("safetensors$", "slow", rate=600_000, times=None, host=CDN))
    check(here, files, here.run("pull", REPO, "-q").stdout.strip())
    assert weights(hub.sent) == size_of(files)


@pytest.mark.parametrize("after_bytes", [-1, 0, 1, 700_000, 1_999_999])
def test_stalled_connection(hub: FakeHub, here: Here, monkeypatch: pytest.MonkeyPatch, after_bytes: int) -> None:
    monkeypatch.setattr(guard, "TIMEOUT", httpx2.Timeout(0.3))
    files = one(2_000_000)
    hub.add(REPO, files)
    hub.faults.append(Fault(ONE, "stall", after_bytes=after_bytes, host=CDN))
    check(here, files, here.run("pull", REPO, "-q").stdout.strip())
    assert hub.faults[0].hits == 1 and weights(hub.sent) == 2_000_000


def test_server_stalled_for_ever(hub: FakeHub, here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "TIMEOUT", httpx2.Timeout(0.3))
    files = one(2_000_000)
    hub.add(REPO, files)
    hub.faults.append(Fault(ONE, "stall", after_bytes=1_500_000, host=CDN))
    hub.faults.append(Fault(ONE, "stall", after_bytes=-1, skip=1, times=None, host=CDN))
    failed = here.run("pull", REPO, code=6)
    assert "does not answer" in failed.stderr and "the next run continues" in failed.stderr
    hub.reset()
    check(here, files, here.run("pull", REPO, "-q").stdout.strip())
    assert weights(hub.sent) == 500_000, "it goes on where it stopped"


SPOILT = {
    "flip": Fault(ONE, "flip", offset=1_234_567),
    "truncate": Fault(ONE, "truncate", by=10),
    "declare more": Fault(ONE, "declare", by=10),
    "declare less": Fault(ONE, "declare", by=-10),
    "changed": Fault(ONE, "changed", offset=1_000_000),
    "small file": Fault(r"config\.json", "flip", offset=1),
}


def spoil(hub: FakeHub, name: str, times: int | None, skip: int = 0) -> Fault:
    """The fault of that name, on GET requests for bytes."""
    fault = Fault(**vars(SPOILT[name]) | {"times": times, "skip": skip, "method": "GET"})
    fault.host = "hub" if name == "small file" else CDN
    hub.faults.append(fault)
    return fault


@pytest.mark.parametrize("name", SPOILT)
def test_wrong_once_is_healed(hub: FakeHub, here: Here, name: str) -> None:
    files = one(2_000_000)
    hub.add(REPO, files)
    fault = spoil(hub, name, 1)
    check(here, files, here.run("pull", REPO, "-q").stdout.strip())
    assert fault.hits == 1


@pytest.mark.parametrize("name", SPOILT)
def test_wrong_always_is_refused(hub: FakeHub, here: Here, name: str) -> None:
    files = one(2_000_000)
    hub.add(REPO, files)
    spoil(hub, name, None)
    spoilt = "config.json" if name == "small file" else ONE
    failed = here.run("pull", REPO, code=8)
    assert spoilt in failed.stderr and ("do not trust" in failed.stderr or "broken" in failed.stderr)
    assert not list(here.root(REPO).rglob(spoilt)), "nothing is kept under its name"
    etag = hub.commit(REPO).files[spoilt].etag
    assert not list(here.root(REPO).glob(f"blobs/{etag}*")), "nor in the cache"
    assert weights(hub.sent) <= 3 * 2_000_000
    hub.reset()
    check(here, files, here.run("pull", REPO, "-q").stdout.strip())


@pytest.mark.parametrize("by", [-1, 1, 1000, -1_999_000, 10**15])
def test_lying_size(hub: FakeHub, here: Here, monkeypatch: pytest.MonkeyPatch, by: int) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 10**18}))
    hub.add(REPO, one(2_000_000))
    hub.faults.append(Fault(ONE, "size", times=None, by=by))
    failed = here.run("pull", REPO, code=8)
    assert ONE in failed.stderr and "2,000,000" in failed.stderr and f"{2_000_000 + by:,}" in failed.stderr
    assert here.partials() == [] and not [path for path in here.root(REPO).rglob(ONE)]


def test_server_without_ranges(hub: FakeHub, here: Here) -> None:
    files = one(2_500_000)
    hub.add(REPO, files)
    hub.faults.append(Fault(ONE, "no_range", times=None, host=CDN))
    hub.faults.append(Fault(ONE, "cut", after_bytes=1_700_000, host=CDN))
    hub.faults.append(Fault(ONE, "cut", after_bytes=900_000, skip=1, host=CDN))
    check(here, files, here.run("pull", REPO, "-q").stdout.strip())
    assert [record.status for record in hub.requests if record.host == CDN] == [200, 200, 200]


def test_another_part_than_asked_for(hub: FakeHub, here: Here) -> None:
    """A proxy that answers a range with a page of its own, and one that ends it early."""
    files = one(2_000_000)
    hub.add(REPO, files)
    hub.faults.append(Fault(ONE, "cut", after_bytes=1_000_000, host=CDN))
    hub.faults.append(Fault(ONE, "status", status=200, skip=1, host=CDN))
    hub.faults.append(Fault(ONE, "truncate", by=300_000, skip=2, host=CDN))
    check(here, files, here.run("pull", REPO, "-q").stdout.strip())
    assert weights(hub.sent) == 2_000_000


@pytest.mark.parametrize("times", [1, None])
def test_content_changes_midway(hub: FakeHub, here: Here, times: int | None) -> None:
    """Half of a file is of another version: the digest tells, and it is fetched anew."""
    files = one(2_000_000)
    hub.add(REPO, files)
    hub.faults.append(Fault(ONE, "cut", after_bytes=900_000, host=CDN))
    spoil(hub, "changed", times, skip=1)
    if times:
        check(here, files, here.run("pull", REPO, "-q").stdout.strip())
        assert weights(hub.sent) == 4_000_000
    else:
        here.run("pull", REPO, code=8)
        assert here.partials() == [] and not list(here.root(REPO).rglob(ONE))


def test_branch_moves_between_runs(hub: FakeHub, here: Here) -> None:
    """What was begun of the old commit is of no use, what is the same in both is."""
    files = shards(2, 1_500_000)
    hub.add(REPO, files)
    hub.faults.append(Fault("00002-of", "cut", after_bytes=1_200_000, host=CDN))
    hub.faults.append(Fault("00002-of", "status", status=403, skip=1, times=None, host=CDN))
    here.run("pull", REPO, code=4)
    newer = {**files, "model-00002-of-00002.safetensors": safetensors(1_400_000, 99)}
    hub.reset()
    sha = hub.add(REPO, newer)
    snapshot = here.run("pull", REPO, "-q").stdout.strip()
    assert tree(snapshot) == newer and Path(snapshot).name == sha
    assert weights(hub.sent) == 1_400_000


@pytest.mark.parametrize("what", ["right", "wrong", "whole and wrong", "too long", "blob too short", "blob alone"])
def test_what_an_earlier_run_left(hub: FakeHub, here: Here, what: str) -> None:
    files = one(1_000_000)
    hub.add(REPO, files)
    here.run("pull", REPO, "-q")
    snapshot = here.root(REPO) / "snapshots" / hub.commit(REPO).sha
    blob, data = (snapshot / ONE).resolve(), files[ONE]
    partial = blob.with_name(f"{blob.name}.gemmaq.incomplete")
    (snapshot / ONE).unlink()
    if what not in ("blob too short", "blob alone"):
        blob.unlink()
        left = {"right": data[:600_000], "wrong": b"x" * 600_000, "whole and wrong": b"x" * len(data)}
        partial.write_bytes(left.get(what, data + b"x"))
    elif what == "blob too short":
        blob.write_bytes(data[:-1])
    hub.reset()
    check(here, files, here.run("pull", REPO, "-q").stdout.strip())
    fetched = {"right": 400_000, "wrong": 1_400_000, "blob alone": 0}
    assert weights(hub.sent) == fetched.get(what, 1_000_000)


def test_disk_full_midway(hub: FakeHub, here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    files = one(4_000_000)
    hub.add(REPO, files)
    written, true = itertools.count(), os.writev

    def writev(out: int, data: list[bytes]) -> int:
        if next(written) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return true(out, data)

    monkeypatch.setattr(os, "writev", writev)
    failed = here.run("pull", REPO, code=7)
    assert "No space left on device" in failed.stderr and "the next run continues" in failed.stderr
    monkeypatch.setattr(os, "writev", true)
    hub.reset()
    check(here, files, here.run("pull", REPO, "-q").stdout.strip())
    assert weights(hub.sent) < 3_000_000


class Tls:
    """TLS in front of a port of this machine; every connection is passed on, byte by byte."""

    def __init__(self, place: str, certificate: Path, key: Path) -> None:
        self.behind = int(place.rpartition(":")[2])
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, key)
        self.listening = context.wrap_socket(socket.create_server(("127.0.0.1", 0)), server_side=True)
        self.port = self.listening.getsockname()[1]
        self.listening.settimeout(0.1)
        self.closed = threading.Event()
        self.thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closed.set()
        self.thread.join()
        self.listening.close()

    def _serve(self) -> None:
        while not self.closed.is_set():
            try:
                front, _ = self.listening.accept()
            except OSError:  # nobody came, or who came did not like the certificate
                continue
            back = socket.create_connection(("127.0.0.1", self.behind))
            for one, other in ((front, back), (back, front)):
                threading.Thread(target=self._pass, args=(one, other), daemon=True).start()

    def _pass(self, one: socket.socket, other: socket.socket) -> None:
        try:
            while data := one.recv(1 << 16):
                other.sendall(data)
            other.shutdown(socket.SHUT_RDWR)
        except OSError:
            return


def test_over_tls(
    hub: FakeHub, here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, require: Callable[[bool, str], None]
) -> None:
    require(shutil.which("openssl") is not None, "openssl")
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost", "-days", "1"]
    subprocess.run([*command, "-out", certificate, "-keyout", key], check=True, capture_output=True)
    with Tls(hub.endpoint, certificate, key) as front, Tls(hub.cdn, certificate, key) as cdn:
        hub.cdn = f"https://localhost:{cdn.port}"
        endpoint = f"https://127.0.0.1:{front.port}"
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        files = shards(2, 9_000_000)
        hub.add(REPO, files)
        hub.faults.append(Fault("00001-of", "cut", after_bytes=7_000_000, host=CDN))
        failed = here.run("pull", REPO, code=6)
        assert "certificate" in failed.stderr, "one that nobody vouches for"
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        huggingface_hub.close_session()
        check(here, files, here.run("pull", REPO, "-q").stdout.strip())
        huggingface_hub.close_session()
        assert hub.faults[0].hits == 1 and weights(hub.sent) < size_of(files) + (4 << 20)


def start(hub: FakeHub, home: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "gemmaq", "pull", REPO, "-q"]
    return subprocess.Popen(command, env=hub.env(home), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def on_disk(home: Path) -> int:
    """Bytes of weights in the cache, whole files or parts."""
    total = 0
    for path in home.glob("hub/*/blobs/*"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            continue  # renamed in this moment
    return total


def grown(home: Path, size: int) -> list[Path]:
    """Partials of more than so many bytes."""
    return [path for path in home.glob("hub/*/blobs/*.incomplete") if path.stat().st_size > size]


def wait_for(process: subprocess.Popen[str], ready: Callable[[], bool]) -> None:
    """Until then, or the process has ended."""
    deadline = time.monotonic() + 60
    while process.poll() is None and not ready():
        assert time.monotonic() < deadline
        time.sleep(0.002)


RATE = 5_000_000
STEP = RATE // 20
KILLS = 5


def killed_again_and_again(folder: Path, seed: int) -> tuple[int, int]:
    """A pull killed at random moments; how often, and bytes that were sent more than once."""
    draw = random.Random(seed)
    files = one(6_000_000) if seed % 2 else shards(3, 2_500_000)
    here = Here(folder / "home")
    total, kills = sum(map(len, files.values())), 0
    with FakeHub(folder / "hub") as hub:
        hub.add(REPO, files)
        hub.faults.append(Fault("safetensors$", "slow", rate=RATE, times=None, host=CDN))
        for _ in range(KILLS):
            begun = on_disk(here.home)
            goal = begun + int(draw.choice((0, draw.random(), draw.random())) * (total - begun) * 0.4)
            process = start(hub, here.home)
            if draw.random() < 0.8:
                wait_for(process, lambda goal=goal: on_disk(here.home) > goal)  # type: ignore[misc]
                time.sleep(draw.random() * 0.1)
            else:  # perhaps before it has begun
                time.sleep(draw.random())
            process.kill()
            if process.wait() == 0:
                break  # too fast
            kills += 1
        last = start(hub, here.home)
        out, err = last.communicate(timeout=60)
        assert last.returncode == 0, err
        check(here, files, out.strip())
        again = weights(hub.sent) - size_of(files)
    files_under_way = 1 if seed % 2 else 3
    assert again <= kills * files_under_way * (BATCH + 2 * STEP), f"seed {seed}: {again} bytes came twice"
    return kills, again


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path: Path) -> None:
    """SIGKILL: at most a batch of each file under way, and what lies in sockets, comes again."""
    with ThreadPoolExecutor(3) as pool:
        done = list(pool.map(lambda seed: killed_again_and_again(tmp_path / str(seed), seed), range(6)))
    assert sum(kills for kills, _ in done) >= 20


@pytest.mark.parametrize(("number", "code"), [(signal.SIGHUP, 129), (signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_asked_to_stop(hub: FakeHub, tmp_path: Path, number: signal.Signals, code: int) -> None:
    """Even from a server so slow that a megabyte takes minutes; nothing that came is lost."""
    files = one(2_000_000)
    hub.add(REPO, files)
    hub.faults.append(Fault(ONE, "slow", rate=20_000, host=CDN))
    here = Here(tmp_path / "home")
    process = start(hub, here.home)
    wait_for(process, lambda: bool(here.partials()))
    time.sleep(0.5)
    process.send_signal(number)
    begun = time.monotonic()
    _, err = process.communicate(timeout=60)
    assert process.returncode == code and "Traceback" not in err
    assert time.monotonic() - begun < 5
    assert on_disk(here.home) > 5_000
    hub.faults.clear()
    again = start(hub, here.home)
    check(here, files, again.communicate(timeout=60)[0].strip())


def test_asked_to_stop_while_another_process_fetches(hub: FakeHub, here: Here) -> None:
    hub.add(REPO, one(100_000))
    with client.lock(REPO, hub.commit(REPO).files[ONE].etag):
        process = start(hub, here.home)
        wait_for(process, lambda: on_disk(here.home) > 0)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in err


def test_two_at_once(hub: FakeHub, tmp_path: Path) -> None:
    files = shards(4, 1_500_000)
    hub.add(REPO, files)
    hub.faults.append(Fault("safetensors$", "slow", rate=3_000_000, times=None, host=CDN))
    here = Here(tmp_path / "home")
    both = [start(hub, here.home), start(hub, here.home)]
    outputs = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    for out, _ in outputs:
        check(here, files, out.strip())
    assert weights(hub.sent) == size_of(files), "each file came once"


def test_partial_of_the_killed_real_client_is_taken_over(hub: FakeHub, here: Here) -> None:
    files = one(8_000_000)
    hub.add(REPO, files)
    hub.faults.append(Fault(ONE, "slow", rate=2_000_000, times=None, host=CDN))
    command = [sys.executable, "-c", f"import huggingface_hub as hf; hf.snapshot_download({REPO!r})"]
    env = hub.env(here.home) | {"HF_HUB_DOWNLOAD_CHUNK_SIZE": "65536"}
    for count in (1, 2):
        process = subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL, text=True)
        wait_for(process, lambda count=count: len(grown(here.home, 1_200_000)) == count)  # type: ignore[misc]
        process.kill()
        process.wait()
    left = here.partials()
    assert len(left) == 2 and not any("gemmaq" in name for name in left)
    hub.reset()
    check(here, files, here.run("pull", REPO, "-q").stdout.strip())
    assert weights(hub.sent) < 7_400_000, "less the larger partial; what the server still sends to the dead counts too"
