"""SHA-256 of files: as hashlib has them, with every byte counted."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

import pytest

from gemmaq.artifact.digests import BLOCK, Stopped, feed, of_file, of_files
from gemmaq.errors import InputError


@pytest.mark.parametrize("size", [0, 1, BLOCK, 2 * BLOCK + 3])
def test_digests_are_those_of_hashlib(tmp_path: Path, size: int) -> None:
    path, blocks = tmp_path / "file", []
    path.write_bytes(bytes(range(251)) * (size // 251 + 1))
    content = path.read_bytes()[:size]
    path.write_bytes(content)
    assert of_file(path, blocks.append) == hashlib.sha256(content).hexdigest()
    assert sum(blocks) == size
    states = [hashlib.sha256(), hashlib.sha1()]
    feed(path, states)
    assert states[1].hexdigest() == hashlib.sha1(content).hexdigest()


def test_several_files_by_key(tmp_path: Path) -> None:
    paths = {str(number): tmp_path / str(number) for number in range(9)}
    for name, path in paths.items():
        path.write_text(name)
    assert of_files(paths) == {name: hashlib.sha256(name.encode()).hexdigest() for name in paths}
    with pytest.raises(InputError, match="absent cannot be read"):
        of_files({**paths, "x": tmp_path / "absent"})


def test_what_fails_or_is_stopped_waits_for_no_large_file(tmp_path: Path) -> None:
    large, small = tmp_path / "large", tmp_path / "small"
    large.touch()
    os.truncate(large, 1 << 40)  # takes minutes to hash, and no space
    with pytest.raises(InputError, match="cannot be read"):
        of_files({"large": large, "missing": tmp_path / "missing"})
    stop, blocks = threading.Event(), []

    def read(count: int) -> None:
        blocks.append(count)
        stop.set()

    small.write_bytes(b"1")
    with pytest.raises(Stopped):
        of_files({"small": small, "large": large}, read, stop)
    assert len(blocks) < 8
