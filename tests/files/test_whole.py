"""Files that are no files, have no end, or cannot be read: each is refused by name, in little time and memory."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from gemmaq.errors import GemmaqError, InputError, NotFoundError
from gemmaq.files import whole
from gemmaq.files.gguf_reader import is_gguf
from gemmaq.files.span import FileSpan, Reader
from gemmaq.files.whole import read_bytes, read_head, size_of
from gemmaq.sources.open import open_source
from inprocess import run

READERS: list[Callable[[Path], object]] = [read_bytes, size_of, lambda path: read_head(path, 10), FileSpan.of]


@pytest.mark.parametrize("read", READERS)
def test_what_is_no_regular_file(read: Callable[[Path], object], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, words in ((tmp_path, "it is a folder"), (tmp_path / "pipe", "no regular"), (Path("/dev/zero"), "no reg")):
        with pytest.raises(InputError, match=f"^{path}.*{words}"):
            read(path)
    with pytest.raises(NotFoundError, match="absent does not exist"):
        read(tmp_path / "absent")
    for name in ("a\0b", "x" * 300):
        with pytest.raises(GemmaqError):
            read(tmp_path / name)


@pytest.mark.parametrize("read", [read_bytes, lambda path: read_head(path, 10)])
def test_errors_of_the_system(read: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.json"
    path.write_text("{}")

    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(InputError, match="cannot be read: Permission denied"):
        read(path)


def test_a_reader_waits_for_no_pipe(tmp_path: Path) -> None:
    """A file that became a pipe after its size was taken."""
    path = tmp_path / "model.gguf"
    path.write_bytes(bytes(2000))
    span = FileSpan.of(path)
    path.unlink()
    os.mkfifo(path)
    with Reader() as reader, pytest.raises(InputError, match="no regular file"):
        reader.bytes(span, 0, 10)
    assert not is_gguf(path)


def test_sizes_by_kind(tmp_path: Path) -> None:
    tracemalloc.start()
    for name in ("config.json", "tokenizer.json", "tokenizer.model", "anything"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(1 << 40)
        with pytest.raises(InputError, match="1,099,511,627,776 bytes, such a file at most"):
            read_bytes(tmp_path / name)
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()
    (tmp_path / "small").write_bytes(b"12345")
    assert read_bytes(tmp_path / "small", 5) == b"12345" and read_head(tmp_path / "small", 2) == b"12"
    with pytest.raises(InputError, match="too large"):
        read_bytes(tmp_path / "small", 4)


@pytest.mark.parametrize(("name", "size"), [("model.safetensors", 10), ("a.index.json", 10), ("tokenizer.json", 60)])
def test_large_files_that_models_have(name: str, size: int, tmp_path: Path) -> None:
    """Megabytes: modules of embedding models, lists of many experts, vocabularies."""
    with (tmp_path / name).open("wb") as file:
        file.truncate(size << 20)
    assert len(read_bytes(tmp_path / name)) == size << 20


def test_a_file_that_grows_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(bytes(100))
    monkeypatch.setattr(whole, "size_of", lambda path: 5)
    with pytest.raises(InputError, match="too large"):
        read_bytes(path, 10)


SIDE_FILES = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json",
    "chat_template.jinja", "chat_template.json", "model.safetensors.index.json", "special_tokens_map.json",
)  # fmt: skip


def pipe(path: Path) -> None:
    os.mkfifo(path)


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


@pytest.mark.parametrize("name", SIDE_FILES)
@pytest.mark.parametrize("make", [Path.mkdir, pipe, sparse])
def test_side_files_of_a_model(name: str, make: Callable[[Path], None], tiny: Path, tmp_path: Path) -> None:
    """The model is read as it is without that file, or refused; nothing waits, and nothing fails in its own way."""
    for path in tiny.iterdir():
        if path.name != name:
            (tmp_path / path.name).symlink_to(path)
    make(tmp_path / name)
    try:
        checkpoint = open_source(str(tmp_path))
        assert checkpoint.tokenizer.pieces
        assert checkpoint.tokenizer_files.contents() is not None
    except (InputError, NotFoundError) as error:
        assert error.path is not None and error.path.startswith(str(tmp_path))


@pytest.mark.parametrize("make", [pipe, sparse])
@pytest.mark.parametrize("name", ["model.gguf", "model.safetensors", "notes.txt"])
def test_sources_that_are_no_models(make: Callable[[Path], None], name: str, tmp_path: Path) -> None:
    make(tmp_path / name)
    run("inspect", tmp_path / name, code=3)
