"""Reads from files that are joined, and from files that change or go."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemmaq.errors import InputError, NotFoundError
from gemmaq.files.span import FileSpan, Reader


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four files of 3, 0, 5 and 1 bytes."""
    folder = tmp_path_factory.mktemp("pieces")
    contents = [b"abc", b"", b"defgh", b"i"]
    for number, content in enumerate(contents):
        (folder / str(number)).write_bytes(content)
    return [folder / str(number) for number in range(len(contents))]


@settings(max_examples=60, deadline=None)
@given(start=st.integers(0, 9), length=st.integers(0, 9))
def test_any_range_is_read_across_files(pieces: list[Path], start: int, length: int) -> None:
    span, whole = FileSpan.of(*pieces), b"abcdefghi"
    assert (span.size, span.starts) == (9, (0, 3, 3, 8))
    with Reader() as reader:
        if start + length <= 9:
            assert reader.bytes(span, start, length) == whole[start : start + length]
        else:
            with pytest.raises(InputError, match="truncated"):
                reader.bytes(span, start, length)


def test_a_file_that_shrinks_is_told(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(bytes(100))
    span = FileSpan.of(path)
    path.write_bytes(bytes(10))
    with Reader() as reader, pytest.raises(InputError, match="ends at byte 10"):
        reader.bytes(span, 0, 100)


def test_missing_files_are_told(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    with pytest.raises(NotFoundError, match="weights does not exist"):
        FileSpan.of(path)
    path.touch()
    span = FileSpan.of(path)
    path.unlink()
    with Reader() as reader, pytest.raises(NotFoundError, match="weights does not exist"):
        reader.open([span])


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="this system takes no such hints")
def test_the_system_is_told_what_will_be_read_of_every_piece(
    pieces: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, int, int]] = []

    def note(descriptor: int, start: int, length: int, advice: int) -> None:
        assert advice == os.POSIX_FADV_WILLNEED
        told.append((Path(os.readlink(f"/proc/self/fd/{descriptor}")).name, start, length))

    monkeypatch.setattr(os, "posix_fadvise", note)
    with Reader() as reader:
        reader.expect(FileSpan.of(*pieces), 2, 7)
    assert told == [("0", 2, 1), ("2", 0, 5), ("3", 0, 1)]
