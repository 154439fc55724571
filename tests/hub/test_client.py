"""Requests to the Hub: ranges of files, servers without ranges, commits without a token."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import constants

from fake_hub import FakeHub, Fault
from gemmaq.errors import AuthError
from gemmaq.hub import Ref, client
from gemmaq.hub.errors import endpoint
from home import Here

REPO = "google/gemma-3-tiny"


def test_a_range_of_a_file(hub: FakeHub, here: Here) -> None:
    data = bytes(range(256)) * 1000
    sha = hub.add(REPO, {"model.safetensors": data, "config.json": b"{}"})
    listing = client.listing(Ref(REPO))
    assert listing.commit == sha and {file.path: file.size for file in listing.files}["config.json"] == 2
    file = listing.find("model.safetensors")
    assert file is not None and listing.find("other") is None
    assert client.read(listing, file, start=1000, end=1300) == data[1000:1300]
    hub.faults.append(Fault("model.safetensors", "no_range", times=None))
    assert client.read(listing, file, start=1000, end=1300) == data[1000:1300]


def test_creating_a_repository_needs_a_token(hub: FakeHub, here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
    with pytest.raises(AuthError, match=f"{REPO} cannot be written without a token"):
        client.create(Ref(REPO), private=False)
    assert not hub.requests


def test_passwords_in_the_endpoint_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "https://me:secret@hub.example")
    assert endpoint() == "https://hub.example"


def test_folders_of_the_cache(here: Here, tmp_path: Path) -> None:
    assert client.cache_folder(REPO).name == "models--google--gemma-3-tiny"
    with client.lock(REPO, "0" * 40), pytest.raises(TimeoutError), client.lock(REPO, "0" * 40):
        pass
