"""Digests are remembered for files that did not change, and for no others, whatever lies in the cache."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from gemmaq.artifact import remembered
from gemmaq.artifact.remembered import Identity

DIGEST = "0123456789abcdef" * 4


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A cache of its own, for which a file is large from 1000 bytes on and settled at once."""
    monkeypatch.setenv("GEMMAQ_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remembered, "SMALLEST", 1000)
    monkeypatch.setattr(remembered, "_SETTLED_NS", 0)
    monkeypatch.setattr(remembered, "_ENDS", 100)
    return tmp_path / "cache/digests"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    path.write_bytes(os.urandom(5000))
    return path


def recalled(path: Path) -> str | None:
    return remembered.recall(path, Identity.of(path.stat()))


def kept(path: Path) -> Path:
    """Remember a digest of a file, whatever its content; returns the entry."""
    remembered.keep(path, Identity.of(path.stat()), DIGEST, since=remembered.now())
    (entry,) = (path.parent / "cache/digests").iterdir()
    return entry


def test_a_digest_is_remembered_under_every_name_of_the_path(weights: Path) -> None:
    assert recalled(weights) is None
    kept(weights)
    link = weights.with_name("link")
    link.symlink_to(weights)
    assert recalled(weights) == recalled(link) == DIGEST


def _overwritten(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(2500)
        file.write(b"changed")


def _set_back(path: Path) -> None:
    """A change whose time of modification is set to that of before, as rsync and touch -r do."""
    times = path.stat()
    _overwritten(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def _replaced(path: Path) -> None:
    times, other = path.stat(), path.with_name("other")
    shutil.copy(path, other)
    _overwritten(other)
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    other.replace(path)


@pytest.mark.parametrize(
    "change", [_overwritten, _set_back, _replaced, lambda path: os.truncate(path, 4000), lambda path: path.touch()]
)
def test_a_file_that_may_have_changed_is_not_recalled(change: Callable[[Path], None], weights: Path) -> None:
    kept(weights)
    change(weights)
    assert recalled(weights) is None


@pytest.mark.parametrize("at", [0, 99, 4901, 4999])
def test_ends_are_compared_even_where_nothing_else_differs(at: int, weights: Path) -> None:
    kept(weights)
    before = Identity.of(weights.stat())
    data = bytearray(weights.read_bytes())
    data[at] ^= 1
    weights.write_bytes(data)
    assert remembered.recall(weights, before) is None


def test_nothing_is_remembered_of_a_file_that_changed_meanwhile(weights: Path, cache: Path) -> None:
    before = Identity.of(weights.stat())
    _overwritten(weights)
    remembered.keep(weights, before, DIGEST, since=remembered.now())
    assert not cache.exists()


def test_nothing_is_remembered_of_a_file_that_changed_shortly_before(
    weights: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two changes within a step of the file system's clock have the same time."""
    monkeypatch.setattr(remembered, "_SETTLED_NS", 3 * 10**9)
    identity = Identity.of(weights.stat())
    latest = max(identity.changed, identity.touched)
    remembered.keep(weights, identity, DIGEST, since=latest + 2 * 10**9)
    assert not cache.exists()
    remembered.keep(weights, identity, DIGEST, since=latest + 4 * 10**9)
    assert recalled(weights) == DIGEST


def test_a_time_in_the_future_is_not_settled() -> None:
    identity = Identity(5000, 1, 1, 100, 10**18)
    assert not identity.is_settled(10**17) and identity.is_settled(2 * 10**18)


def test_small_files_are_not_remembered(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(b"x" * 999)
    remembered.keep(path, Identity.of(path.stat()), DIGEST, since=remembered.now())
    assert not cache.exists() and recalled(path) is None


def _sealed(content: bytes) -> bytes:
    return content + b"\n" + hashlib.sha256(content).hexdigest().encode()


def _with(entry: Path, **changes: object) -> bytes:
    return _sealed(json.dumps(json.loads(entry.read_bytes().partition(b"\n")[0]) | changes).encode())


@pytest.mark.parametrize(
    "content",
    [
        lambda entry: b"",
        lambda entry: entry.read_bytes()[:-1],
        lambda entry: entry.read_bytes().replace(DIGEST.encode(), DIGEST[::-1].encode()),
        lambda entry: entry.read_bytes() + b"\n" * 5000,
        lambda entry: _sealed(b"[" * 500),
        lambda entry: _sealed(b"[]"),
        lambda entry: _sealed(b"{}"),
        lambda entry: _sealed(b"\xff"),
        lambda entry: _with(entry, sha256=5),
        lambda entry: _with(entry, sha256="x" * 64),
        lambda entry: _with(entry, file=None),
    ],
)  # fmt: skip
def test_damaged_entries_count_as_none(content: Callable[[Path], bytes], weights: Path) -> None:
    entry = kept(weights)
    entry.write_bytes(content(entry))
    assert recalled(weights) is None
    kept(weights)
    assert recalled(weights) == DIGEST


def test_entries_that_others_may_write_count_as_none(weights: Path) -> None:
    entry = kept(weights)
    assert entry.stat().st_mode & 0o077 == 0
    entry.chmod(0o666)
    assert recalled(weights) is None


def test_entries_of_other_users_count_as_none(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept(weights)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert recalled(weights) is None


def test_links_and_pipes_in_place_of_entries_count_as_none(weights: Path) -> None:
    entry = kept(weights)
    entry.rename(entry.with_name("elsewhere"))
    entry.symlink_to("elsewhere")
    assert recalled(weights) is None
    entry.unlink()
    os.mkfifo(entry)
    assert recalled(weights) is None


def test_a_cache_that_cannot_be_written_is_ignored(weights: Path, cache: Path) -> None:
    cache.parent.write_bytes(b"")  # a file in place of the folder
    remembered.keep(weights, Identity.of(weights.stat()), DIGEST, since=remembered.now())
    assert recalled(weights) is None


def test_the_oldest_entries_make_room(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "_MOST", 3)
    paths = [tmp_path / f"{number}.gguf" for number in range(5)]
    for path in paths:
        path.write_bytes(os.urandom(2000))
        remembered.keep(path, Identity.of(path.stat()), DIGEST, since=remembered.now())
        for entry in cache.iterdir():
            os.utime(entry, ns=(0, entry.stat().st_mtime_ns - 10**9))
    assert len(list(cache.iterdir())) == 3
    assert [recalled(path) for path in paths] == [None, None, DIGEST, DIGEST, DIGEST]


def test_identities_differ_in_everything_but_names(weights: Path) -> None:
    identity = Identity.of(weights.stat())
    os.link(weights, weights.with_name("other-name"))
    now = Identity.of(weights.stat())
    assert now.content == identity.content
    assert replace(identity, changed=1).content != identity.content
