"""The fake Hub as bytes on a connection: ranges, faults, accounting; no client in between."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

import fake_hub
from fake_hub import FakeHub, Fault
from hub_client import FILES, REPO, SHARD, get, shard_url, write_files


def test_ranges(hub: FakeHub) -> None:
    hub.add(REPO, FILES)
    url, data = shard_url(hub), FILES[SHARD]
    size = len(data)
    for asked, first, stop in (
        ("0-0", 0, 1),
        ("7-99", 7, 100),
        (f"{size - 3}-", size - 3, size),
        ("-5", size - 5, size),
    ):
        got = get(url, Range=f"bytes={asked}")
        assert (got.status, got.body) == (206, data[first:stop])
        assert got.headers["content-range"] == f"bytes {first}-{stop - 1}/{size}"
    assert get(url, Range=f"bytes=10-{size + 10}").body == data[10:]
    beyond = get(url, Range=f"bytes={size}-")
    assert (beyond.status, beyond.headers["content-range"]) == (416, f"bytes */{size}")
    etag = get(url).headers["etag"]
    assert get(url, Range="bytes=1-2", If_Range=etag).status == 206
    assert get(url, Range="bytes=1-2", If_Range='"other"').body == data
    assert get(url, Authorization="Bearer hf_read").status == 400
    assert get(url.partition("?")[0]).status == 403


BODY_FAULTS = {
    "cut": Fault(SHARD, "cut", after_bytes=100_000),
    "reset": Fault(SHARD, "reset", after_bytes=100_000),
    "stall": Fault(SHARD, "stall", after_bytes=100_000),
    "mute": Fault(SHARD, "stall", after_bytes=-1),
    "status": Fault(SHARD, "status", status=429, retry_after=2),
    "redirect": Fault(SHARD, "redirect"),
    "flip": Fault(SHARD, "flip", offset=12_345),
    "changed": Fault(SHARD, "changed", offset=299_990),
    "truncate": Fault(SHARD, "truncate", by=10),
    "declare more": Fault(SHARD, "declare", by=10),
    "declare less": Fault(SHARD, "declare", by=-10),
    "no_range": Fault(SHARD, "no_range"),
    "lost": Fault(SHARD, "lost"),
}


@pytest.mark.parametrize("name", BODY_FAULTS)
def test_faults(hub: FakeHub, name: str) -> None:
    hub.add(REPO, FILES)
    url, data = shard_url(hub), FILES[SHARD]
    hub.reset()
    fault = BODY_FAULTS[name]
    fault.hits, fault.host = 0, "cdn"
    hub.faults.append(fault)
    got = get(url, timeout=0.3, Range="bytes=0-") if name == "no_range" else get(url, timeout=0.3)
    after = get(url)
    assert (after.status, after.body, fault.hits) == (200, data, 1)
    first, second = hub.requests
    assert (first.faults, second.faults) == ((fault.kind,), ())
    assert first.sent == len(data if name == "declare less" else got.body)
    turned = bytearray(data)
    match name:
        case "cut" | "reset" | "stall":
            assert (got.told, got.body) == (len(data), data[:100_000])
            assert got.error == {"reset": "ConnectionResetError", "stall": "TimeoutError"}.get(name, got.error)
        case "mute" | "lost":
            assert got.error == {"mute": "TimeoutError", "lost": "RemoteDisconnected"}[name]
        case "status":
            assert (got.status, got.headers["retry-after"]) == (429, "2")
        case "redirect":
            assert (got.status, f"{hub.cdn}{got.headers['location']}") == (302, url)
        case "flip":
            turned[12_345] ^= 255
            assert got.body == turned and got.headers["etag"] == after.headers["etag"]
        case "changed":
            assert got.body[:299_990] == data[:299_990] and got.body[-1] == data[-1] ^ 255
            assert got.headers["etag"] != after.headers["etag"]
        case "truncate":
            assert got.told == len(got.body) == len(data) - 10 and got.error is None
        case "declare more":
            assert (got.told, got.body) == (len(data) + 10, data)
        case "declare less":
            assert got.told == len(data) - 10 and got.body == data[:-10]
        case "no_range":
            assert (got.status, got.body) == (200, data)


def test_rules_count_skip_and_draw(hub: FakeHub) -> None:
    hub.add(REPO, FILES)
    url = f"{hub.endpoint}/{REPO}/resolve/main/config.json"

    def statuses(count: int) -> list[int]:
        return [get(url).status for _ in range(count)]

    hub.faults.append(Fault(r"config\.json$", "status", status=500, times=2, skip=1, method="GET", host="hub"))
    assert statuses(5) == [200, 500, 500, 200, 200]
    hub.faults[:] = [Fault("config", "status", times=None, chance=0.5)]
    assert 5 <= statuses(40).count(503) <= 35
    with FakeHub(hub.root / "other", seed=7) as one, FakeHub(hub.root / "third", seed=7) as other:
        for each in (one, other):
            each.faults.append(Fault("x", "status", times=None, chance=0.3))
        drawn = [[bool(each.faults.of("GET", "hub", "x")) for _ in range(50)] for each in (one, other)]
        assert drawn[0] == drawn[1] and 0 < sum(drawn[0]) < 50
    with pytest.raises(ValueError, match="unknown fault 'explode': one of cut"):
        Fault("", "explode")


def test_slow_and_untrue_sizes(hub: FakeHub) -> None:
    hub.add(REPO, FILES)
    hub.faults.append(Fault(SHARD, "slow", rate=1_000_000, host="cdn"))
    begun = time.monotonic()
    assert get(shard_url(hub)).body == FILES[SHARD]
    assert 0.25 < time.monotonic() - begun < 1
    hub.faults.append(Fault(f"^{REPO}/{SHARD}$", "size", times=None, by=7))
    told = json.loads(get(f"{hub.endpoint}/api/models/{REPO}?blobs=true").body)["siblings"]
    assert {row["rfilename"]: row["size"] - len(FILES[row["rfilename"]]) for row in told if row["size"]}[SHARD] == 7
    linked = get(f"{hub.endpoint}/{REPO}/resolve/main/{SHARD}").headers["x-linked-size"]
    assert int(linked) == len(FILES[SHARD]) + 7 and get(shard_url(hub)).told == len(FILES[SHARD])


def test_huge_files_are_not_read(hub: FakeHub, tmp_path: Path) -> None:
    folder = tmp_path / "huge"
    folder.mkdir()
    for number in range(3):
        with open(folder / f"model-{number}.safetensors", "wb") as file:
            file.truncate(20 << 30)
    begun = time.monotonic()
    sha = hub.add(REPO, folder, digests={f"model-{number}.safetensors": f"{number}" * 64 for number in range(3)})
    assert time.monotonic() - begun < 1 and sha == hub.commit(REPO).sha
    url = get(f"{hub.endpoint}/{REPO}/resolve/main/model-2.safetensors").headers["location"]
    end = get(url, Range="bytes=-4")
    assert end.body == bytes(4) and end.headers["content-range"].endswith(f"/{20 << 30}")


def test_same_files_same_commit(hub: FakeHub, tmp_path: Path) -> None:
    write_files(tmp_path / "folder")
    first = hub.add(REPO, FILES)
    assert hub.add("acme/copy", tmp_path / "folder", revision="other") == first
    assert hub.add(REPO, {**FILES, "config.json": b"{}"}) != first
    assert hub.read(REPO, "config.json", first) == FILES["config.json"]


def test_unknown_route_is_told(hub: FakeHub, capfd: pytest.CaptureFixture[str]) -> None:
    assert get(f"{hub.endpoint}/api/agent-harnesses").status == 404 and not hub.unknown
    assert get(f"{hub.endpoint}/api/spaces/a/b").status == 404
    assert "no such route: GET hub /api/spaces/a/b" in capfd.readouterr().err
    hub.reset()
    assert not hub.requests


def test_process_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "acme" / "tiny").mkdir(parents=True)
    (tmp_path / "acme" / "tiny" / "config.json").write_text("{}")
    log = tmp_path / "log"
    fault = json.dumps({"match": "config", "kind": "status", "status": 502})
    command = [
        sys.executable,
        fake_hub.__file__,
        "--root",
        str(tmp_path),
        "--fault",
        fault,
        "--log",
        str(tmp_path / "log"),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            url = f"{process.stdout.readline().strip()}/acme/tiny/resolve/main/config.json"
            assert [get(url).status, get(url).body] == [502, b"{}"]
            until = time.monotonic() + 5
            while len(lines := log.read_text().splitlines() if log.exists() else []) < 2 and time.monotonic() < until:
                time.sleep(0.01)
        finally:
            process.terminate()
    assert [json.loads(line)["sent"] for line in lines if json.loads(line)["status"] == 200] == [2]
