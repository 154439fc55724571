"""SHA-256 of files: as hashlib has them, with every byte counted."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from gemmaq.artifact.digests import BLOCK, feed, of_file, of_files
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
