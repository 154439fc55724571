"""Digests of files that are being written: right whatever the order, ended when the work is."""

from __future__ import annotations

import hashlib
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from gemmaq.artifact import digests
from gemmaq.artifact.digests import of_file, of_files
from gemmaq.checkpoint import plain
from gemmaq.containers.layout import OutputFile, Piece, Placement
from gemmaq.convert.hashing import BackgroundHasher
from gemmaq.encodings import ENCODINGS
from gemmaq.errors import InputError
from gemmaq.files.span import FileSpan
from gemmaq.methods import Choice
from gemmaq.planning.format import PieceSpec
from gemmaq.planning.plan import PlannedTensor

COLUMNS = 8
NOWHERE = FileSpan((), (), 0)


def layout(seeded: random.Random) -> OutputFile:
    """Tensors of one or two pieces, with gaps between them, behind a head."""
    at, placements = 100, []
    for number in range(seeded.randrange(1, 9)):
        rows = seeded.randrange(1, 200)
        source = plain(f"t{number}", (rows, COLUMNS), ENCODINGS["f32"], span=NOWHERE, offset=0)
        pieces = []
        for row_bytes in seeded.choice([(32,), (16, 8)]):
            pieces.append(Piece(at, row_bytes))
            at += rows * row_bytes
        specs = tuple(PieceSpec("", "F32", COLUMNS, piece.row_bytes) for piece in pieces)
        planned = PlannedTensor(source, source.name, source.encoding, specs, Choice("nearest"), 0.0)
        placements.append(Placement(planned, tuple(pieces)))
        at += seeded.randrange(64)
    return OutputFile("file", at, seeded.randbytes(100), tuple(placements))


@pytest.mark.parametrize("seed", range(20))
def test_a_file_written_in_any_order_is_followed(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "BLOCK", 1000)
    seeded = random.Random(seed)
    file, path = layout(seeded), tmp_path / "file"
    path.write_bytes(file.head.ljust(file.size, b"\0"))
    slabs = [
        (placement, first, min(7, placement.tensor.source.rows - first))
        for placement in file.placements
        for first in range(0, placement.tensor.source.rows, 7)
    ]
    if seed % 2:
        seeded.shuffle(slabs)
    with BackgroundHasher() as hasher, path.open("r+b", buffering=0) as out, ThreadPoolExecutor(3) as pool:
        wrote = hasher.watch(path, file)
        lock = threading.Lock()

        def write(slab: tuple[Placement, int, int]) -> None:
            placement, first, count = slab
            for piece in placement.pieces:
                data = np.random.default_rng(first).bytes(count * piece.row_bytes)
                with lock:
                    out.seek(piece.offset + first * piece.row_bytes)
                    out.write(data)
                wrote(piece.offset + first * piece.row_bytes, memoryview(data))

        list(pool.map(write, slabs))
        assert hasher.written(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_what_is_not_written_to_its_end_ends_nothing(tmp_path: Path) -> None:
    file, path = layout(random.Random(1)), tmp_path / "file"
    path.write_bytes(bytes(file.size))
    before = threading.active_count()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt), BackgroundHasher() as hasher:
        hasher.watch(path, file)
        raise KeyboardInterrupt
    assert time.monotonic() - started < 5 and threading.active_count() == before


def test_bytes_in_their_order_are_hashed_as_they_are_written(tmp_path: Path) -> None:
    """Not as they are in the file afterwards."""
    file, path = layout(random.Random(3)), tmp_path / "file"
    path.write_bytes(bytes(file.size))
    expected = bytearray(file.size)
    with BackgroundHasher() as hasher:
        wrote = hasher.watch(path, file)
        for placement in file.placements:
            for piece in placement.pieces:
                data = random.Random(piece.offset).randbytes(placement.tensor.source.rows * piece.row_bytes)
                expected[piece.offset : piece.offset + len(data)] = data
                wrote(piece.offset, memoryview(data))
        assert hasher.written(path) == hashlib.sha256(expected).hexdigest()


def test_a_file_without_tensors_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"all of it")
    with BackgroundHasher() as hasher:
        hasher.watch(path, OutputFile("file", 9, b"all of it"))
        assert hasher.written(path) == hashlib.sha256(b"all of it").hexdigest()


def test_a_long_read_is_given_up_with_the_work(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as out:
        out.truncate(1 << 36)
    started = time.monotonic()
    with BackgroundHasher() as hasher:
        future = hasher.start(path)
        time.sleep(0.05)
    assert time.monotonic() - started < 5
    assert future.cancelled() or future.exception() is not None


def test_a_file_cut_while_being_written_is_told(tmp_path: Path) -> None:
    file, path = layout(random.Random(2)), tmp_path / "file"
    path.write_bytes(bytes(50))
    with BackgroundHasher() as hasher:
        wrote = hasher.watch(path, file)
        for placement in reversed(file.placements):
            for piece in placement.pieces:
                wrote(piece.offset, memoryview(bytes(placement.tensor.source.rows * piece.row_bytes)))
        with pytest.raises(InputError, match="cut short"):
            hasher.written(path)


def test_files_are_told_in_bytes(tmp_path: Path) -> None:
    sizes = {"a": 0, "b": 1, "c": 3 << 20}
    for name, size in sizes.items():
        (tmp_path / name).write_bytes(random.Random(size).randbytes(size))
    counts: list[int] = []
    found = of_files({name: tmp_path / name for name in sizes}, counts.append)
    assert found == {name: hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in sizes}
    assert sum(counts) == sum(sizes.values())
    with pytest.raises(InputError, match="cannot be read"):
        of_file(tmp_path / "absent")
