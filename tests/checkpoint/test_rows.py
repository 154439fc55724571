"""Rows of tensors: any slab is that part of the whole, in every layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from damage import small_model, stored
from gemmaq.checkpoint.rows import read_rows, weights
from gemmaq.files.span import Reader
from gemmaq.sources.open import open_source
from inprocess import run

LAYOUTS = {
    "plain": ("--to", "gguf", "--quant", "q4_0"),
    "mlx": ("--to", "mlx", "--quant", "affine4"),
    "symmetric mlx": ("--to", "mlx", "--quant", "q5_0"),
    "compressed-tensors": ("--to", "safetensors", "--quant", "q8_0"),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("rows") / "gemma-3-small")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_slab_is_a_part_of_the_whole(layout: str, model: Path, tmp_path: Path) -> None:
    run("convert", model, *LAYOUTS[layout], "-q", "-o", tmp_path / "out")
    checkpoint = open_source(str(tmp_path / "out"))
    with Reader() as reader:
        for tensor in checkpoint.layer(1).values():
            whole = weights(tensor, 0, tensor.rows, reader)
            assert whole.shape == (tensor.rows, tensor.columns) and whole.dtype == np.float32
            first, count = tensor.rows // 3, max(1, tensor.rows // 2)
            assert np.array_equal(weights(tensor, first, count, reader), whole[first : first + count])
    assert layout.split()[-1] in {tensor.layout for tensor in checkpoint.layer(1).values()}


def test_bf16_is_read_as_it_is(model: Path) -> None:
    checkpoint = open_source(str(model))
    tensor = checkpoint.layer(0)["mlp.up_proj"]
    with Reader() as reader:
        found = weights(tensor, 0, tensor.rows, reader)
    assert np.array_equal(found.view(np.uint32) >> 16, stored(model, tensor.name))


def test_a_buffer_that_cannot_be_grown_is_left_alone(model: Path) -> None:
    """Somebody may hold rows that were read before."""
    tensor, buffer = open_source(str(model)).layer(0)["mlp.up_proj"], bytearray()
    with Reader() as reader:
        (held,) = read_rows(tensor, 0, 1, reader, buffer)
        before = held.copy()
        (more,) = read_rows(tensor, 0, 3, reader, buffer)
    assert np.array_equal(held, before) and np.array_equal(more[:1], before) and len(more) == 3
