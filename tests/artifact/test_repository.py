"""What a repository holds, read without fetching its models."""

from __future__ import annotations

import hashlib

import pytest

from fake_hub import FakeHub
from gemmaq.artifact.repository import Repository
from gemmaq.errors import InputError
from gemmaq.hub import Ref, client
from home import Settle

REPO = "acme/some"


def test_digests_are_taken_from_the_hub_from_the_list_or_made(hub: FakeHub, settle: Settle) -> None:
    settle(hub, "hf_write")
    listed = "0" * 64
    hub.add(REPO, {"a.txt": "a", "sub/b.txt": "b", "sub/SHA256SUMS": f"{listed}  b.txt\n", "sub/empty": ""})
    whole = Repository(client.listing(Ref(REPO)))
    assert whole.read("a.txt") == b"a" and whole.read("none") is None and whole.read("sub/empty") == b""
    assert whole.digests({"a.txt": 1}) == {"a.txt": hashlib.sha256(b"a").hexdigest()}
    below = Repository(whole.listing, "sub/")
    assert set(below.files) == {"b.txt", "SHA256SUMS", "empty"}
    assert below.digests({"b.txt": 1}) == {"b.txt": listed}


def test_a_file_too_large_to_be_read_whole_is_an_error(hub: FakeHub, settle: Settle) -> None:
    settle(hub, "hf_write")
    hub.add(REPO, {"gemmaq.json": "{}"})
    listing = client.listing(Ref(REPO))
    (file,) = (file for file in listing.files if file.path == "gemmaq.json")
    from dataclasses import replace

    with pytest.raises(InputError, match="too many"):
        Repository(replace(listing, files=(replace(file, size=1 << 40),))).records("")
