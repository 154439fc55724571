"""Weights of compressed-tensors folders, by hand and by the library."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import quantized_folders as folders
from runtimes import Require, need


@pytest.mark.parametrize("kind", folders.kinds("int"))
def test_weights_are_those_of_the_scheme(kind: str, tmp_path: Path) -> None:
    folders.check(tmp_path / "model", kind)


@pytest.mark.oracle
@pytest.mark.parametrize("kind", [kind for kind in folders.kinds("int") if "order" not in kind and "loose" not in kind])
def test_the_library_decompresses_to_these_weights(kind: str, require: Require) -> None:
    """Rounded to the dtype of the scales, as it computes."""
    need(require, "compressed_tensors", "torch")
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationScheme

    settings, make, _ = folders.KINDS[kind]
    scheme = QuantizationScheme.model_validate(settings["config_groups"]["group_0"])
    arrays, expected = make(np.random.default_rng(5), (64, 256))
    state = {suffix: folders.as_torch(*array) for suffix, array in arrays.items()}
    found = BaseCompressor.get_value_from_registry(settings["format"]).decompress(state, scheme)["weight"]
    wanted = folders.as_torch("F32", expected.astype(np.float32)).to(found.dtype)
    np.testing.assert_array_equal(found.float().numpy(), wanted.float().numpy())
