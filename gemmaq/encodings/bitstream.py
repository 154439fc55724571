"""Arrays of floats, and streams of codes as MLX and compressed-tensors pack them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gemmaq.encodings import Encoding, codec

if TYPE_CHECKING:
    from gemmaq.encodings import F32, U8, Values


def floats(encoding: Encoding, values: F32) -> U8:
    """Weights or scales as bytes of a float encoding, u8 [rows, bytes]."""
    pack = codec(encoding).pack
    assert pack is not None
    return pack(np.ascontiguousarray(values))


def words(bits: int, values: Values) -> U8:
    """Codes as MLX and compressed-tensors both have them: a stream of bits along the row, lowest first."""
    from gemmaq.encodings.kernels import pack_pairs, pack_stream

    codes = values.codes
    if bits == 8:
        return codes  # type: ignore[no-any-return]
    out = np.empty((len(codes), codes.shape[1] * bits // 8), np.uint8)
    if bits == 4:
        pack_pairs(codes.reshape(-1).view("<u2"), out.reshape(-1))
        return out
    pack_stream(codes.reshape(-1, 8), bits, out.reshape(-1, bits))
    return out
