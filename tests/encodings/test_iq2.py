"""IQ2_XXS, IQ2_XS and IQ2_S in bytes; `test_grid_search` compares how codes are chosen."""

from __future__ import annotations

import pytest

from blocks import reads_as_gguf_py, survives_packing

TYPES = ("iq2_xxs", "iq2_xs", "iq2_s")


@pytest.mark.parametrize("name", TYPES)
def test_any_bytes_read_as_gguf_py_reads_them(name: str) -> None:
    reads_as_gguf_py(name)


@pytest.mark.parametrize("name", TYPES)
def test_any_bytes_survive_reading_and_packing(name: str) -> None:
    survives_packing(name)
