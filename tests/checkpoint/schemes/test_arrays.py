"""Rows and columns of arrays in files."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemmaq.checkpoint.schemes import arrays as arrays_module
from gemmaq.checkpoint.schemes.arrays import Array, matrix, misfit, need, numbers, rows_of, weight_settings
from gemmaq.errors import InputError
from gemmaq.files.safetensors_header import Entry
from gemmaq.files.span import FileSpan, Reader


@given(rows=st.integers(1, 9), columns=st.integers(1, 9), data=st.data())
def test_rows_and_strips_are_parts_of_the_whole(
    rows: int, columns: int, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    whole = np.arange(rows * columns, dtype=np.int32).reshape(rows, columns)
    path = tmp_path_factory.getbasetemp() / "array"
    path.write_bytes(b"head" + whole.tobytes())
    array = Array(FileSpan.of(path), 4, "I32", rows, columns)
    first = data.draw(st.integers(0, columns - 1))
    count = data.draw(st.integers(1, columns - first))
    row = data.draw(st.integers(0, rows - 1))
    together = data.draw(st.integers(1, 99))
    longest = data.draw(st.sampled_from([0, 1 << 15]))
    with Reader() as reader, patch.multiple(arrays_module, _SHORT=longest, _TOGETHER=together):
        assert np.array_equal(array.read(reader), whole)
        assert np.array_equal(array.read(reader, row, 1), whole[row : row + 1])
        assert np.array_equal(array.strip(reader, first, count), whole[:, first : first + count])


def test_numbers_have_their_dtype() -> None:
    assert numbers("F8_E4M3", bytes([0x38, 0xB8])).tolist() == [1, -1]
    assert numbers("F8_E8M0", bytes([127, 128])).tolist() == [1, 2]
    assert numbers("BF16", np.array([0x3F80], "<u2").tobytes()).tolist() == [1]
    assert numbers("I8", b"\xff").tolist() == [-1]


def test_arrays_that_do_not_fit_are_named() -> None:
    span = FileSpan((Path("m"),), (0,), 8)
    arrays = {"qweight": (span, Entry("m.qweight", "I32", (4, 2), 0, 32))}
    assert (rows_of(arrays, "qweight").rows, rows_of(arrays, "qweight", 1).rows) == (4, 8)
    assert matrix(arrays, "qweight", ("I32",), name="m").columns == 2
    with pytest.raises(InputError, match="qweight I32"):
        matrix(arrays, "qweight", ("F16",), name="m")
    with pytest.raises(InputError, match="lacks its scales"):
        need(arrays, ("qweight", "scales"), name="m", scheme="GPTQ")
    assert "qweight [4, 2]" in misfit("m", arrays, 3).message
    assert weight_settings({"config_groups": {"a": {"weights": {"num_bits": 4}}, "b": 1}}) == [{"num_bits": 4}]
    assert weight_settings({"config_groups": 3}) == []
