"""The Hub's cache on disk: links, revisions, and what interrupted downloads leave."""

from __future__ import annotations

from pathlib import Path

import pytest

from gemmaq.hub import Listing, Ref, RemoteFile, cache

COMMIT = "a" * 40
FILE = RemoteFile("sub/model.safetensors", 10, "d" * 64, "")


def listing(revision: str | None = None) -> Listing:
    return Listing(Ref("org/name", revision), COMMIT, (FILE,))


@pytest.mark.parametrize("links", [True, False])
def test_a_blob_appears_in_its_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    if not links:
        monkeypatch.setattr(Path, "symlink_to", lambda *_: (_ for _ in ()).throw(OSError))
    blob = cache.blob(tmp_path, FILE)
    blob.parent.mkdir(parents=True)
    blob.write_bytes(bytes(10))
    assert not cache.held(tmp_path, listing(), FILE)
    for _ in range(2):  # a second link replaces the first
        cache.link(tmp_path, listing(), FILE)
    assert cache.held(tmp_path, listing(), FILE)
    path = cache.snapshot(tmp_path, COMMIT) / FILE.path
    assert path.is_symlink() == links and path.read_bytes() == bytes(10)
    blob.write_bytes(bytes(9))
    assert cache.held(tmp_path, listing(), FILE) != links


def test_revisions_are_remembered(tmp_path: Path) -> None:
    assert cache.recall(tmp_path, Ref("org/name")) is None
    cache.snapshot(tmp_path, COMMIT).mkdir(parents=True)
    cache.remember(tmp_path, listing())
    cache.remember(tmp_path, listing("refs/pr/1"))
    cache.remember(tmp_path, listing(COMMIT))
    assert sorted(p.relative_to(tmp_path).as_posix() for p in (tmp_path / "refs").rglob("*") if p.is_file()) == [
        "refs/main",
        "refs/refs/pr/1",
    ]
    for revision in (None, "main", "refs/pr/1", COMMIT):
        assert cache.recall(tmp_path, Ref("org/name", revision)) == cache.snapshot(tmp_path, COMMIT)
    assert cache.recall(tmp_path, Ref("org/name", "b" * 40)) is None
    (tmp_path / "refs/odd").write_text("../../elsewhere")
    assert cache.recall(tmp_path, Ref("org/name", "odd")) is None


@pytest.mark.parametrize(
    ("own", "others", "kept"),
    [(0, {"x.incomplete": 4}, 4), (6, {"x.incomplete": 4}, 6), (2, {"x.incomplete": 4, "y.incomplete": 7}, 7)],
)
def test_the_longest_beginning_is_continued(tmp_path: Path, own: int, others: dict[str, int], kept: int) -> None:
    mine = cache.partial(tmp_path, FILE)
    mine.parent.mkdir(parents=True)
    if own:
        mine.write_bytes(bytes(own))
    for name, size in others.items():
        (mine.parent / f"{FILE.etag}.{name}").write_bytes(bytes(size))
    assert cache.adopt(tmp_path, FILE) == mine
    assert [(path.name, path.stat().st_size) for path in mine.parent.iterdir()] == [(mine.name, kept)]


def test_a_beginning_longer_than_the_file_is_dropped(tmp_path: Path) -> None:
    mine = cache.partial(tmp_path, FILE)
    mine.parent.mkdir(parents=True)
    (mine.parent / f"{FILE.etag}.incomplete").write_bytes(bytes(11))
    assert not cache.adopt(tmp_path, FILE).exists()
    assert list(mine.parent.iterdir()) == []
