"""MLX's affine types: unsigned codes, a scale and a minimum a group. Only MLX folders hold them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from gemmaq.encodings import ENCODINGS, Codec, Quantized, fused
from gemmaq.encodings.affine_kernels import nearest

if TYPE_CHECKING:
    from gemmaq.encodings import F32


def _nearest_affine(bits: int, group: int, x: F32) -> Quantized:
    groups = x.reshape(-1, group)
    codes = np.empty(groups.shape, np.uint8)
    scales, minima = np.empty(len(groups), np.float32), np.empty(len(groups), np.float32)
    nearest(groups, np.float32((1 << bits) - 1), codes, scales, minima)
    shape = (len(x), -1)
    return Quantized(codes.reshape(shape), scales.reshape(shape), minima.reshape(shape))


CODECS = {
    name: Codec(
        nearest=partial(_nearest_affine, encoding.bits, encoding.block),
        fused=partial(fused.affine4, encoding.block) if encoding.bits == 4 else None,
    )
    for name, encoding in ENCODINGS.items()
    if encoding.module == "affine"
}
