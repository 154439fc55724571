"""Stacks of AltUp in a folder, and tables with rows of zeros behind their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import gemma3n
from gemmaq.checkpoint.folder import open_folder
from gemmaq.checkpoint.rows import weights
from gemmaq.checkpoint.stacks import padded
from gemmaq.files.span import Reader
from gemmaq.models.gemma3n import names


def test_streams_are_joined_and_rows_of_zeros_lie_in_no_file(tmp_path: Path) -> None:
    found = open_folder(gemma3n.write(tmp_path / "m"), "m", "m")
    stack, table = found.tensors[names.INTO_STREAMS], found.tensors[names.LAYER_EMBEDDING]
    assert stack.shape == (3, 256, 256) and table.shape == (320, 6400)
    longer = padded(table, 400)
    assert longer.shape == (400, 6400) and padded(table, 320) is table
    with Reader() as reader:
        own, whole = weights(table, 0, 320, reader), weights(longer, 0, 400, reader)
        assert np.array_equal(whole[:320], own) and own.any() and not whole[320:].any()
        assert not weights(longer, 390, 10, reader).any()
