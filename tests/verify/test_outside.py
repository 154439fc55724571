"""What lies outside tensors: size, head, generated arrays, what fills gaps."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gemmaq.containers.layout import OutputFile, Piece, Placement, StoredArray
from gemmaq.files.runs import Run
from gemmaq.files.span import FileSpan
from gemmaq.verify.outside import difference

HEAD = b"head" + b"constant" + b"...."
"""Its generated array lies at 4."""


def tensor(name: str, piece: Piece) -> Placement:
    planned: Any = SimpleNamespace(name=name, source=SimpleNamespace(rows=2))
    return Placement(planned, (piece,))


FILE = OutputFile(
    "file", 64, HEAD, (tensor("b", Piece(32, 4, (Run(0, 1, 48), Run(1, 1, 32)))), tensor("a", Piece(16, 8)))
)
"""Tensor a lies at 16 to 32, the rows of b at 48 and at 32."""


def said(tmp_path: Path, content: bytes, file: OutputFile = FILE) -> str | None:
    path = tmp_path / "file"
    path.write_bytes(content)
    return difference(path, file, {"made": StoredArray("U8", (8,), FileSpan.of(path), 4, 8)})


def test_tensors_are_not_compared(tmp_path: Path) -> None:
    assert said(tmp_path, HEAD + b"\x01" * 20 + bytes(12) + b"\x01" * 4 + bytes(12)) is None


@pytest.mark.parametrize(
    ("at", "words"),
    [
        (0, "its header is not what gemmaq writes"),
        (4, "tensor made is not what gemmaq writes"),
        (11, "tensor made is not what gemmaq writes"),
        (12, "its header is not what gemmaq writes"),
        (31, None),
        (35, None),
        (36, "the bytes behind tensor b are not zero"),
        (47, "the bytes behind tensor b are not zero"),
        (51, None),
        (63, "the bytes behind tensor b are not zero"),
    ],
)
def test_every_other_byte_is(tmp_path: Path, at: int, words: str | None) -> None:
    content = bytearray(HEAD.ljust(64, b"\0"))
    content[at] ^= 1
    assert said(tmp_path, bytes(content)) == (words and f"file: {words}")


@pytest.mark.parametrize(
    ("at", "words"),
    [
        (4, "tensor made is not what gemmaq writes"),
        (23, "the bytes behind tensor a are not zero"),
        (24, "its header is not what gemmaq writes"),
        (31, "its header is not what gemmaq writes"),
        (32, None),
    ],
)
def test_arrays_between_tensors_are_compared(tmp_path: Path, at: int, words: str | None) -> None:
    file = OutputFile("file", 40, HEAD, (tensor("b", Piece(32, 4)), tensor("a", Piece(16, 3))), ((24, b"constant"),))
    content = bytearray(HEAD.ljust(24, b"\0") + b"constant" + bytes(8))
    assert said(tmp_path, bytes(content), file) is None
    content[at] ^= 1
    assert said(tmp_path, bytes(content), file) == (words and f"file: {words}")


def test_sizes_and_missing_files(tmp_path: Path) -> None:
    assert said(tmp_path, HEAD) == "file has 16 bytes, gemmaq writes 64"
    assert difference(tmp_path / "absent", FILE, {}) == "absent is missing"


def test_a_file_without_tensors_is_compared_as_a_whole(tmp_path: Path) -> None:
    alone = OutputFile("file", len(HEAD), HEAD)
    assert said(tmp_path, HEAD, alone) is None
    assert said(tmp_path, HEAD[:-1] + b"!", alone) == "file: it is not what gemmaq writes"
