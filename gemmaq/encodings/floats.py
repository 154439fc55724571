"""F32, F16 and BF16: weights stored one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gemmaq.encodings import Codec
from gemmaq.encodings.rounding import narrow_bf16, narrow_f16, widen_bf16

if TYPE_CHECKING:
    from gemmaq.encodings import F32, U8


def _unpack_bf16(raw: U8) -> F32:
    bits = raw.view(np.uint16)
    out = np.empty(bits.shape, np.uint32)
    widen_bf16(bits.reshape(-1), out.reshape(-1))
    return out.view(np.float32)


def _pack_bf16(x: F32) -> U8:
    out = np.empty(x.shape, np.uint16)
    narrow_bf16(x.reshape(-1).view(np.uint32), out.reshape(-1))
    return out.view(np.uint8)


def _pack_f16(x: F32) -> U8:
    out = np.empty(x.shape, np.uint16)
    narrow_f16(x.reshape(-1), out.reshape(-1))
    return out.view(np.uint8)


CODECS = {
    "f32": Codec(lambda raw: raw.view(np.float32), lambda x: x, lambda x: x.view(np.uint8)),
    "f16": Codec(lambda raw: raw.view(np.float16).astype(np.float32), lambda x: x, _pack_f16),
    "bf16": Codec(_unpack_bf16, lambda x: x, _pack_bf16),
}
