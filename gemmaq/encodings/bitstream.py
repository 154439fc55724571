"""Arrays as MLX and compressed-tensors store them: floats one by one, codes as a stream of bits along each row."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gemmaq.encodings import ENCODINGS, Encoding, codec

if TYPE_CHECKING:
    from gemmaq.encodings import F32, U8


def pack_floats(encoding: Encoding, numbers: F32) -> U8:
    """Weights or scales f32 [rows, n] as bytes of a float encoding, u8 [rows, bytes]."""
    pack = codec(encoding).pack
    assert pack is not None
    return pack(np.ascontiguousarray(numbers))


def unpack_floats(encoding: Encoding, raw: U8) -> F32:
    """The reverse of `pack_floats`."""
    read = codec(encoding).read
    assert read is not None
    return read(raw)  # type: ignore[no-any-return]


def pack_scales(encoding: Encoding, dtype: str, scales: F32) -> U8:
    """Scales f32 [rows, n] of a type as bytes, u8 [rows, bytes].

    Args:
        encoding: the type, which knows what scales of one byte are.
        dtype: safetensors name of their type in the file.
        scales: numbers.
    """
    if encoding.has_byte_scales:
        from gemmaq.encodings import microscaling

        return microscaling.pack_scales(encoding.scales, scales)
    return pack_floats(ENCODINGS[dtype.lower()], scales)


def unpack_scales(encoding: Encoding, dtype: str, raw: U8) -> F32:
    """The reverse of `pack_scales`."""
    if encoding.has_byte_scales:
        from gemmaq.encodings import microscaling

        return microscaling.unpack_scales(encoding.scales, raw)
    return unpack_floats(ENCODINGS[dtype.lower()], raw)


def pack_codes(bits: int, codes: U8) -> U8:
    """Codes u8 [rows, columns] as a stream of `bits` bits each, lowest bit first: u8 [rows, columns * bits / 8]."""
    from gemmaq.encodings.packing_kernels import pack_pairs, pack_stream

    if bits == 8:
        return codes
    out = np.empty((len(codes), codes.shape[1] * bits // 8), np.uint8)
    if bits == 4:
        pack_pairs(codes.reshape(-1).view("<u2"), out.reshape(-1))
        return out
    pack_stream(codes.reshape(-1, 8), bits, out.reshape(-1, bits))
    return out


def unpack_codes(bits: int, raw: U8) -> U8:
    """The reverse of `pack_codes`."""
    from gemmaq.encodings.packing_kernels import unpack_stream

    codes = np.empty((len(raw), raw.shape[1] * 8 // bits), np.uint8)
    unpack_stream(raw.reshape(-1, bits), bits, codes.reshape(-1, 8))
    return codes
