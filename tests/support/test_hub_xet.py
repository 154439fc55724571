"""The fake Hub's Xet: the clients that users have can read from it."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from pathlib import Path

import pytest

import hub_xet
from fake_hub import FakeHub, Fault
from hub_client import get, noise

REPO = "google/gemma-3-tiny"
SIZE = 2 * hub_xet.CHUNK * hub_xet.CHUNKS + 100_001
Python = Callable[..., str]
RANGES = """
import hashlib, hf_xet
group = hf_xet.XetSession().new_download_stream_group(token_refresh_url=sys.argv[1])
info = hf_xet.XetFileInfo(sys.argv[2], int(sys.argv[3]))
digests = []
for place in sys.argv[4:]:
    start, end = map(int, place.split("-"))
    digests.append(hashlib.sha256(b"".join(group.download_stream(info, start=start, end=end))).hexdigest())
print(*digests)
"""


@pytest.fixture
def data(hub: FakeHub) -> bytes:
    hub.xet = True
    data = noise(SIZE, 1)
    hub.add(REPO, {"model.safetensors": data})
    return data


@pytest.mark.parametrize("version", ["v2", "v1"])
def test_hf_hub_download(hub: FakeHub, data: bytes, python: Python, version: str) -> None:
    if version == "v1":
        hub.faults.append(Fault("v2/reconstructions", "status", status=404, times=None))
    path = python('print(hf.hf_hub_download(sys.argv[1], "model.safetensors"))', REPO)
    assert Path(path).read_bytes() == data
    asked = [record for record in hub.requests if record.path.startswith("/xorbs/")]
    assert len(asked) == 3 and all(record.status == 206 for record in asked)
    assert hub.sent[f"{REPO}/model.safetensors"] > SIZE


def test_ranges(hub: FakeHub, data: bytes, python: Python) -> None:
    draw = random.Random(1)
    edges = [0, 1, hub_xet.CHUNK, hub_xet.CHUNK * hub_xet.CHUNKS, SIZE - 1, SIZE]
    edges += [draw.randrange(SIZE) for _ in range(6)]
    places = [(a, b) for a, b in zip(edges, draw.sample(edges, len(edges)), strict=True) if a < b]
    assert len(places) >= 4
    url = f"{hub.endpoint}/api/models/{REPO}/xet-read-token/{hub.commit(REPO).sha}"
    name = hub_xet.file_hash(hub.commit(REPO).files["model.safetensors"])
    got = python(RANGES, url, name, SIZE, *(f"{start}-{end}" for start, end in places))
    assert got.split() == [hashlib.sha256(data[start:end]).hexdigest() for start, end in places]


def test_who_has_no_token(hub: FakeHub, data: bytes, python: Python) -> None:
    name = hub_xet.file_hash(hub.commit(REPO).files["model.safetensors"])
    assert get(f"{hub.cdn}/v2/reconstructions/{name}").status == 401
    known = {"Authorization": f"Bearer {hub_xet.TOKEN}"}
    assert get(f"{hub.cdn}/v2/reconstructions/{'0' * 64}", **known).status == 404
    assert get(f"{hub.cdn}/v2/reconstructions/{name}", **known, Range=f"bytes={SIZE}-").status == 416
