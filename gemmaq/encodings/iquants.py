"""IQ4_NL: blocks of 32 four-bit codes for sixteen levels that are closer together around 0 than towards the ends.

A block is its FP16 scale and 16 bytes of codes, as in Q4_0.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from gemmaq.encodings import ENCODINGS, Codec, Quantized, codebook_search, packing_kernels
from gemmaq.encodings.legacy import half_bytes, halves

if TYPE_CHECKING:
    from gemmaq.encodings import U8

_IQ4_NL = ENCODINGS["iq4_nl"]


def _pack(q: Quantized) -> U8:
    codes, scales = q.codes.reshape(-1, _IQ4_NL.block), half_bytes(q.scales)
    out = np.empty((len(codes), _IQ4_NL.block_bytes), np.uint8)
    packing_kernels.pack_nibbles(scales, codes, 2, out)
    return out.reshape(len(q.codes), -1)


def _read(raw: U8) -> Quantized:
    blocks = raw.reshape(-1, _IQ4_NL.block_bytes)
    codes = np.empty((len(blocks), _IQ4_NL.block), np.uint8)
    packing_kernels.unpack_nibbles(blocks, 2, codes)
    return Quantized(codes.reshape(len(raw), -1), halves(blocks[:, :2]).reshape(len(raw), -1))


CODECS = {"iq4_nl": Codec(_read, partial(codebook_search.quantize, _IQ4_NL), _pack)}
