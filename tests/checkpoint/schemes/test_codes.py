"""Codes come back from every way to pack them, whatever rows are asked for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemmaq.checkpoint.schemes.arrays import Array
from gemmaq.checkpoint.schemes.codes import LAYOUTS, Codes
from gemmaq.files.span import FileSpan, Reader
from quantized_folders import awq_words, loosely, stream

PACK = {
    "rows": lambda codes, bits: stream(codes, bits),
    "loose": loosely,
    "signed": lambda codes, bits: (codes.astype(np.int16) - 128).astype(np.int8),
    "inputs": lambda codes, bits: stream(codes, bits).T,
    "outputs": lambda codes, bits: stream(codes.T, bits),
    "outputs first": lambda codes, bits: stream(codes.T, bits).T,
    "awq": lambda codes, bits: awq_words(codes.T),
}
"""Layout -> how u8 [rows, columns] is packed by hand."""


def test_every_layout_is_packed_by_hand() -> None:
    assert PACK.keys() == LAYOUTS.keys()


@pytest.mark.parametrize("layout", LAYOUTS)
@given(data=st.data())
def test_codes_come_back(layout: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    bits = {"signed": 8, "awq": 4}.get(layout) or data.draw(st.integers(2, 8))
    rows, columns = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 40))
    rows = rows * 8 if layout == "awq" else rows * 7
    codes = (
        np.random.default_rng(data.draw(st.integers(0, 99))).integers(0, 1 << bits, (rows, columns)).astype(np.uint8)
    )
    packed = np.ascontiguousarray(PACK[layout](codes, bits))
    path = tmp_path_factory.getbasetemp() / f"codes {layout}"
    path.write_bytes(packed.tobytes())
    array = Array(FileSpan.of(path), 0, "I8" if layout == "signed" else "I32", *packed.shape)
    first = data.draw(st.integers(0, rows - 1))
    count = data.draw(st.integers(1, rows - first))
    with Reader() as reader:
        found = Codes(array, bits, layout, columns).read(reader, first, count)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, codes[first : first + count])
