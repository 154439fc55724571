"""Hostile answers: each ends soon, with the exit code of the network, and little of it is kept in memory."""

from __future__ import annotations

import json
import random
import resource
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator

import httpx2
import huggingface_hub
import pytest
from huggingface_hub import constants

from fake_hub import FakeHub
from gemmaq.errors import InputError, NetworkError
from gemmaq.hub import Ref, RemoteFile, client, guard, retry
from gemmaq.hub.allowance import RefusedError, TooSlowError
from home import Here
from hostile_server import ANSWERS, OK, HostileServer, gzip_bomb, silence, whole
from repos import REPO, safetensors, shards

SHA = "0" * 40


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Deadlines of less than a second, and one attempt after the first."""
    for name in ("HEAD_SECONDS", "WORK_SECONDS", "_ANSWER_SECONDS", "STEP_SECONDS"):
        monkeypatch.setattr(guard, name, 0.8)
    monkeypatch.setattr(guard, "TIMEOUT", httpx2.Timeout(0.7))
    monkeypatch.setattr(retry, "ATTEMPTS", 2)
    monkeypatch.setattr(retry, "FIRST_WAIT", 0.1)
    huggingface_hub.close_session()
    yield
    huggingface_hub.close_session()


def point(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", f"http://{host}")
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"http://{host}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    )


def quickly(call: Callable[[], object], seconds: float = 10) -> None:
    """Within seconds (0.1 to 2 on an idle machine, busy ones have time), and in less than 200 MB."""
    before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    call()
    assert time.monotonic() - begun < seconds
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("command", [["pull"], ["inspect"]])
def test_hostile_listings(here: Here, monkeypatch: pytest.MonkeyPatch, command: list[object], name: str) -> None:
    here.run("pull", "-h")  # imports take their time
    with HostileServer(lambda line: ANSWERS[name]()) as server:
        point(monkeypatch, server.host)
        quickly(lambda: here.run(*command, REPO, code=6))
    assert not list(here.home.rglob("*.safetensors"))


@pytest.mark.parametrize("name", ANSWERS)
def test_hostile_files(hub: FakeHub, here: Here, name: str) -> None:
    """What comes in place of a weight file of 3 MB: too few bytes, too many, and at no pace."""
    hub.add(REPO, {"config.json": b"{}", "model.safetensors": safetensors(3_000_000, 1)})
    with HostileServer(lambda line: ANSWERS[name]()) as server:
        hub.cdn = f"http://{server.host}"
        code = {
            "endless": 8,
            "endless spaces": 8,
            "endless without length": 8,
            "huge length": 8,
            "huge chunk": 8,
            "deep": 8,
        }
        code |= {"dripping body": 8}  # which says its length
        quickly(lambda: here.run("pull", REPO, code=code.get(name, 6)))
    assert not [path for path in here.root(REPO).rglob("model.safetensors")]
    assert server.sent < 100_000_000


@pytest.mark.parametrize("name", ANSWERS)
def test_hostile_parts(hub: FakeHub, here: Here, name: str) -> None:
    hub.add(REPO, shards(2, 100_000), lfs_from=1000)
    with HostileServer(lambda line: ANSWERS[name]()) as server:
        hub.cdn = f"http://{server.host}"
        listing = client.listing(Ref(REPO))
        file = next(file for file in listing.files if file.path.endswith(".safetensors"))

        def read() -> None:
            if name in ("endless", "endless spaces", "endless without length", "huge length", "huge chunk", "deep"):
                assert len(client.read(listing, file, start=0, end=1000)) == 1000  # and no more is read
            else:
                with pytest.raises(NetworkError):
                    client.read(listing, file, start=0, end=1000)

        quickly(read)
    assert server.sent < 100_000_000


def listing_of(size: object, path: object = "config.json", count: int = 1) -> bytes:
    sibling = {"rfilename": path, "size": size, "blobId": SHA}
    return json.dumps({"id": REPO, "sha": SHA, "siblings": [sibling] * count}).encode()


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (listing_of(10 * 10**12), (3, 7)),
        (listing_of(10**17), (3,)),
        (listing_of(10**30), (3,)),
        (listing_of(-1), (6,)),
        (listing_of("12"), (6,)),
        (listing_of(1.5), (6,)),
        (listing_of(True), (6,)),
        (listing_of([1]), (6,)),
        (listing_of(1, path=7), (6,)),
        (listing_of(1, path=None), (6,)),
        (listing_of(1, count=200_000), (6,)),
        (b'{"id": "a/b", "sha": 7, "siblings": []}', (6,)),
        (b'{"id": "a/b", "sha": "' + SHA.encode() + b'", "siblings": 7}', (6,)),
        (b'{"siblings": ' + b"[" * 500_000, (6,)),
        (b'{"sha": ' + b"9" * 100_000 + b"}", (6,)),
        (b'{"sha": NaN}', (6,)),
    ],
)
def test_listings_that_lie(here: Here, monkeypatch: pytest.MonkeyPatch, body: bytes, code: tuple[int, ...]) -> None:
    with HostileServer(lambda line: whole(body)) as server:
        point(monkeypatch, server.host)
        if code == (6,):
            quickly(lambda: here.run("inspect", REPO, code=6))
            return
        with pytest.raises(AssertionError) as failed:
            here.run("inspect", REPO, code=-1)
        assert any(f"exit code {each}," in str(failed.value) for each in code)


def test_a_huge_side_file_is_not_read(hub: FakeHub, here: Here) -> None:
    hub.add(REPO, shards(1, 100_000))
    listing = client.listing(Ref(REPO))
    with pytest.raises(InputError, match="more than the 67,108,864"):
        client.read(listing, RemoteFile("config.json", 10**13, None, SHA), start=0, end=10**13)


def test_progress_prolongs_a_file(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that takes longer than its first deadline arrives while enough of it comes; an answer does not."""
    monkeypatch.setattr(guard, "STEP_BYTES", 1000)

    def steadily(line: str) -> Iterator[bytes]:
        yield OK + b"Connection: close\r\nContent-Length: 8000\r\n\r\n"  # the server does close it
        for _ in range(8):
            time.sleep(0.12)
            yield bytes(1000)

    guarded = guard.client()
    with HostileServer(steadily) as server:
        url = f"http://{server.host}"
        assert len(guarded.get(url, extensions=guard.for_file(8000)).content) == 8000
        with pytest.raises(TooSlowError, match="answers too slowly"):
            guarded.get(url)
        with pytest.raises(RefusedError, match="more than the 7,999 bytes"):
            guarded.get(url, extensions=guard.for_file(7999))


@pytest.mark.parametrize("size", [0, 1, 1 << 16, (1 << 22) - 1, 5_000_001])
@pytest.mark.parametrize("at_once", [True, False])
def test_files_of_any_size_arrive_as_they_are(size: int, at_once: bool) -> None:
    """Large ones are read past the parser of HTTP after their first piece, wherever that ends."""
    body = random.Random(size).randbytes(size)

    def answer(line: str) -> Iterator[bytes]:
        head = OK + b"Content-Length: %d\r\n\r\n" % size
        yield from [head + body] if at_once else [head, body[:7], body[7:]]

    with HostileServer(answer, keeps=True) as server, guard.client() as guarded:
        url, extensions = f"http://{server.host}", guard.for_file(size)
        for _ in range(2):  # a connection that is not at its end is not used again
            with guarded.stream("GET", url, extensions=extensions) as response:
                assert b"".join(response.iter_raw()) == body


def cut(size: int) -> Iterator[bytes]:
    """A body of 5 MB that ends before its end."""
    yield OK + b"Content-Length: 5000001\r\n\r\n" + bytes(size)


def stalled() -> Iterator[bytes]:
    yield from cut(4_900_000)
    yield from silence()


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (lambda: cut(100), httpx2.RemoteProtocolError),
        (lambda: cut(4_900_000), httpx2.RemoteProtocolError),
        (stalled, httpx2.ReadTimeout),
    ],
)
def test_large_files_that_end_early(answer: Callable[[], Iterator[bytes]], error: type[Exception]) -> None:
    with HostileServer(lambda line: answer()) as server, guard.client() as guarded, pytest.raises(error):
        guarded.get(f"http://{server.host}", extensions=guard.for_file(1 << 30))


def test_slow_uploads_have_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "WORK_SECONDS", 1.0)

    def steadily() -> Iterator[bytes]:
        for _ in range(6):
            time.sleep(0.25)
            yield b"x"

    with HostileServer(lambda line: whole(b"{}")) as server:
        headers = {"Content-Length": "6"}
        assert guard.client().put(f"http://{server.host}", content=steadily(), headers=headers).json() == {}


def test_work_on_a_commit_has_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that waits longer than any to a question, and is silent until then."""
    monkeypatch.setattr(guard, "WORK_SECONDS", 10.0)

    def late(line: str) -> Iterator[bytes]:
        time.sleep(1.0)
        yield from whole(b"{}")

    with HostileServer(late) as server:
        assert guard.client().post(f"http://{server.host}", json={}).json() == {}
        with pytest.raises((TooSlowError, httpx2.ReadTimeout)):
            guard.client().get(f"http://{server.host}")


def test_no_thread_is_left(hub: FakeHub, here: Here) -> None:
    hub.add(REPO, shards(3, 100_000))
    here.run("pull", REPO)
    huggingface_hub.close_session()
    until = time.monotonic() + 2
    ours = [thread for thread in threading.enumerate() if "_watch" in thread.name or "run)" in thread.name]
    while ours and time.monotonic() < until:
        time.sleep(0.01)
        ours = [thread for thread in ours if thread.is_alive()]
    assert not ours


def test_encodings_are_refused_before_they_are_undone() -> None:
    with HostileServer(lambda line: gzip_bomb()) as server, guard.client() as guarded:
        tracemalloc.start()
        with pytest.raises(RefusedError, match="encoding 'gzip'"):
            guarded.get(f"http://{server.host}")
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
        tracemalloc.stop()
