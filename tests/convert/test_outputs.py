"""Output files: their full size from the start, all bytes in place but those of tensors, everything closed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gemmaq.containers.layout import OutputFile
from gemmaq.convert.outputs import flushing, opening, sync, write_all

FILES = [
    OutputFile("a/one.gguf", 100, b"head", fixed=((40, b"between"),)),
    OutputFile("two.json", 3, b"{}\n"),
    OutputFile("empty", 0, b""),
]


def nobody(*_: object) -> None:
    """No one follows the writing."""


def before_tensors(file: OutputFile) -> bytes:
    content = bytearray(file.head.ljust(file.size, b"\0"))
    for offset, data in file.fixed:
        content[offset : offset + len(data)] = data
    return bytes(content)


def test_files_have_their_size_and_head_at_once(tmp_path: Path) -> None:
    watched = []
    pairs = [(tmp_path / file.name, file) for file in FILES]
    with opening(pairs, lambda path, file: watched.append((path, file)) or nobody) as outputs:
        assert watched == pairs
        for path, file in pairs:
            assert path.read_bytes() == before_tensors(file)
        with flushing(outputs):
            write_all(outputs[0].descriptor, memoryview(b"tail"), 96)
        sync(outputs)
    assert (tmp_path / "a/one.gguf").read_bytes() == before_tensors(FILES[0])[:96] + b"tail"
    for output in outputs:
        with pytest.raises(OSError):
            os.fstat(output.descriptor)


def test_an_existing_file_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "two.json").write_text("mine")
    with pytest.raises(FileExistsError), opening([(tmp_path / file.name, file) for file in FILES], lambda *_: nobody):
        pass
    assert (tmp_path / "two.json").read_text() == "mine"


def test_a_failure_to_flush_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gemmaq.convert import outputs as module

    def fail(_: object) -> None:
        raise OSError(28, "full")

    monkeypatch.setattr(module, "_FLUSH_SECONDS", 0)
    monkeypatch.setattr(module, "sync", fail)
    with pytest.raises(OSError, match="full"), flushing([]):
        pass
