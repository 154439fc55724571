"""Rows of an array that lie in several places, between zeros, or with gaps between their numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gemmaq.checkpoint.part import Part
from gemmaq.files.runs import Run
from gemmaq.files.span import FileSpan, Reader
from gemmaq.files.strided import Strided


def read(part: Part, first: int, count: int) -> np.ndarray:
    target = bytearray(b"\xff" * count * part.row_bytes)
    with Reader() as reader:
        part.read(reader, first, count, memoryview(target))
    return np.frombuffer(target, np.uint16).reshape(count, -1)


@given(st.integers(0, 11), st.integers(1, 12))
def test_any_rows_are_read_from_all_places(tmp_path_factory: object, first: int, count: int) -> None:
    count = min(count, 12 - first)
    numbers = np.arange(60, dtype=np.uint16)
    path = Path(tmp_path_factory.getbasetemp()) / "part"  # type: ignore[attr-defined]
    path.write_bytes(numbers.tobytes())
    span = FileSpan.of(path)
    turned = numbers[20:40].reshape(5, 4).T
    runs = (
        Run(0, 3, 0, span),
        Run(3, 4, 40, span, strided=Strided(turned.shape, turned.strides, 2)),
        Run(7, 3, 0, zeros=True),
        Run(10, 2, 100),
    )
    expected = np.concatenate([numbers[:15].reshape(3, 5), turned, np.zeros((3, 5)), numbers[50:].reshape(2, 5)])
    part = Part(span, 0, 10, scattered=runs)
    assert part.is_strided and part.spans == (span,)
    assert np.array_equal(read(part, first, count), expected[first : first + count])
    plain = Part(span, 0, 10)
    assert not plain.is_strided
    assert np.array_equal(read(plain, first, count), numbers.reshape(12, 5)[first : first + count])
