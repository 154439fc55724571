"""Streams of codes, bits along the row, lowest first, as MLX and compressed-tensors have them; floats as bytes."""

from __future__ import annotations

import numpy as np
import pytest

from gemmaq.encodings import ENCODINGS
from gemmaq.encodings.bitstream import pack_codes, pack_floats, unpack_codes, unpack_floats


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
def test_codes_are_a_stream_of_bits(bits: int) -> None:
    codes = np.random.default_rng(bits).integers(0, 1 << bits, (3, 64), np.uint8)
    packed = pack_codes(bits, codes)
    assert packed.shape == (3, 64 * bits // 8)
    each = np.unpackbits(codes, axis=1, bitorder="little").reshape(3, 64, 8)[:, :, :bits]
    assert np.array_equal(np.unpackbits(packed, axis=1, bitorder="little"), each.reshape(3, -1))
    assert np.array_equal(unpack_codes(bits, packed), codes)


@pytest.mark.parametrize(("name", "dtype"), [("f32", "<f4"), ("f16", "<f2")])
def test_floats_as_bytes(name: str, dtype: str) -> None:
    values = np.array([[0.5, -2.0], [65504.0, 0.0]], np.float32)
    packed = pack_floats(ENCODINGS[name], values.T)
    assert packed.tobytes() == values.T.astype(dtype).tobytes()
    assert np.array_equal(unpack_floats(ENCODINGS[name], packed), values.T)
