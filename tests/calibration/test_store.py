"""Calibrated codes on disk: what is stored is read."""

from __future__ import annotations

import numpy as np
import pytest

from calibrating import as_f32, read_back
from gemmaq.calibration import gptq
from gemmaq.calibration.store import Store
from gemmaq.checkpoint.rows import read_rows, values_of
from gemmaq.encodings import ENCODINGS
from gemmaq.files.span import Reader
from gemmaq.inference import device as forward
from gemmaq.methods import METHODS

pytestmark = pytest.mark.usefixtures("torch_and_transformers")


@pytest.mark.parametrize("name", METHODS["gptq"].encodings)
def test_what_is_stored_is_read(name, checkpoint, tmp_path):
    encoding, random = ENCODINGS[name], np.random.default_rng(0)
    source = checkpoint.tensors["model.layers.0.self_attn.q_proj.weight"]
    x = random.standard_normal(source.shape).astype(np.float32)
    with forward.open_device("cpu", 1) as device:
        known = gptq.invert(as_f32(np.eye(source.columns)), gptq.Settings(), group=encoding.block, device=device)
        values = gptq.quantize(x, known, encoding, portable=False, device=device)
    tensor = Store(tmp_path).put(source, encoding, values)
    assert (tensor.name, tensor.shape, tensor.encoding) == (source.name, source.shape, encoding)
    assert (
        tensor.nbytes == sum(path.stat().st_size for path in tmp_path.iterdir()) == source.rows * encoding.row_bytes(64)
    )
    found = read_back(tensor)
    np.testing.assert_array_equal(found.codes, values.codes)
    np.testing.assert_array_equal(found.scales, values.scales)
    assert (found.minima is None) == (values.minima is None) == (encoding.zero is not None)
    if values.minima is not None:
        np.testing.assert_array_equal(found.minima, values.minima)
    with Reader() as reader:  # any rows of it
        np.testing.assert_array_equal(
            values_of(tensor, read_rows(tensor, 5, 7, reader, bytearray())).codes, values.codes[5:12]
        )
