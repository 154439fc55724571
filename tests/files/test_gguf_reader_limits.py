"""Headers of GGUF files as a whole: what is within the limits of each part may still be too much together."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from gemmaq.errors import InputError
from gemmaq.files import gguf_reader
from gemmaq.files.span import FileSpan


def key(name: str, kind: int, value: bytes) -> bytes:
    return struct.pack("<Q", len(name)) + name.encode() + struct.pack("<I", kind) + value


def write(path: Path, *keys: bytes, size: int = 1 << 40) -> FileSpan:
    """A sparse file of a terabyte."""
    with path.open("wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", 3, 0, len(keys)) + b"".join(keys))
        file.truncate(size)
    return FileSpan.of(path)


def test_a_header_has_a_limit_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_reader, "MAX_HEADER", 1 << 22)
    text = struct.pack("<Q", 1 << 20) + bytes(1 << 20)
    assert len(gguf_reader.parse(write(tmp_path / "a.gguf", key("a", 8, text))).keys) == 1
    span = write(tmp_path / "b.gguf", *(key(str(number), 8, text) for number in range(5)))
    with pytest.raises(InputError, match="the header has more than 4,194,304 bytes"):
        gguf_reader.parse(span)


def test_strings_of_all_arrays_have_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_reader, "_MAX_STRINGS", 1000)
    array = struct.pack("<IQ", 8, 600) + bytes(8 * 600)
    gguf_reader.parse(write(tmp_path / "a.gguf", key("a", 9, array)))
    with pytest.raises(InputError, match="claims 600 strings"):
        gguf_reader.parse(write(tmp_path / "b.gguf", key("a", 9, array), key("b", 9, array)))
