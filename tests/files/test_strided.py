"""Numbers with gaps between them, against numpy's own views."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemmaq.files.span import FileSpan, Reader
from gemmaq.files.strided import Strided


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    numbers = np.arange(6 * 700 * 50, dtype=np.uint16)
    path = tmp_path_factory.mktemp("strided") / "x"
    path.write_bytes(b"head" + numbers.tobytes())
    return path, numbers


@settings(deadline=None)
@given(st.permutations([0, 1, 2]), st.integers(1, 3), st.integers(0, 2), st.integers(0, 99), st.integers(1, 99))
def test_any_view_is_read_in_any_slab(
    stored: tuple[Path, np.ndarray], axes: list[int], step: int, skipped: int, first: int, count: int
) -> None:
    path, numbers = stored
    view = numbers.reshape(6, 700, 50)[:, skipped::step].transpose(axes)
    strided = Strided(view.shape, view.strides, 2)
    rows = view.reshape(-1, view.shape[-1])
    first = min(first, len(rows) - 1)
    count = min(count, len(rows) - first)
    at = 4 + 2 * 50 * skipped
    with Reader() as reader:
        read = strided.read(reader, FileSpan.of(path), at, (first, count))
    assert np.array_equal(read.view(np.uint16), rows[first : first + count])
