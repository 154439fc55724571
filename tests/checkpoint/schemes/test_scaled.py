"""Weights of FP8 folders, by hand and by transformers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import quantized_folders as folders
from gemmaq.checkpoint.rows import weights
from gemmaq.files.span import Reader
from gemmaq.sources.open import open_source
from runtimes import Require, need


@pytest.mark.parametrize("kind", folders.kinds("fp8", "modelopt"))
def test_weights_are_those_of_the_scheme(kind: str, tmp_path: Path) -> None:
    folders.check(tmp_path / "model", kind)


@pytest.mark.oracle
@pytest.mark.parametrize("block", [(64, 128), (128, 128), (32, 64), "tensor"])
def test_transformers_decodes_to_these_weights(block: tuple[int, int] | str, require: Require) -> None:
    need(require, "transformers", "torch")
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize

    arrays, expected = folders.fp8(block)(np.random.default_rng(5), (128, 256))
    codes, scales = (folders.as_torch(*array) for array in arrays.values())
    scales = scales.reshape(1, 1) if scales.ndim == 0 else scales
    found = Fp8Dequantize(None)._dequantize_one(codes, scales)
    np.testing.assert_array_equal(found.numpy(), expected.astype(np.float32))


def test_a_mere_cast_is_read(tmp_path: Path) -> None:
    folders.write(tmp_path / "model", None, folders.fp8_alone)
    tensor = open_source(str(tmp_path / "model")).layer(0)["mlp.up_proj"]
    with Reader() as reader:
        found = weights(tensor, 0, tensor.rows, reader)
    assert tensor.encoding.name == "fp8-numbers" and np.abs(found).max() == 448
