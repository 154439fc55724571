"""MLX's affine types: unsigned codes, a scale and a minimum a group. Only MLX folders hold them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from gemmaq.encodings import ENCODINGS, Codec, Quantized
from gemmaq.encodings.kernels import extremes
from gemmaq.jit import compiled

if TYPE_CHECKING:
    from gemmaq.encodings import F32

_SMALLEST = np.float32(1e-7)
_ZERO = np.float32(0)


@compiled
def _nearest(x: Any, levels: Any, codes: Any, scales: Any, minima: Any) -> None:
    """The rule of mx.quantize: the end of larger magnitude is exact, and so is 0 if the range spans it.

    Shapes: x f32 [groups, n], codes u8 alike, scales and minima f32 [groups]. Source: mlx, affine_quantize.
    """
    highs = np.empty(x.shape[0], np.float32)
    extremes(x, minima, highs)
    for g in range(x.shape[0]):
        low, high = minima[g], highs[g]
        falling = abs(low) <= abs(high)
        scale = max((high - low) / levels, _SMALLEST)
        scale = -scale if falling else scale
        edge = high if falling else low
        steps = np.float32(np.rint(edge / scale))
        exact = steps != _ZERO
        scales[g] = edge / steps if exact else scale
        minima[g] = edge if exact else _ZERO
    for g in range(x.shape[0]):
        scale, minimum = scales[g], minima[g]
        for j in range(x.shape[1]):
            level = np.float32(np.rint((x[g, j] - minimum) / scale))
            codes[g, j] = np.uint8(np.int32(min(max(level, _ZERO), levels)))


def _nearest_affine(bits: int, group: int, x: F32) -> Quantized:
    groups = x.reshape(-1, group)
    codes = np.empty(groups.shape, np.uint8)
    scales, minima = np.empty(len(groups), np.float32), np.empty(len(groups), np.float32)
    _nearest(groups, np.float32((1 << bits) - 1), codes, scales, minima)
    shape = (len(x), -1)
    return Quantized(codes.reshape(shape), scales.reshape(shape), minima.reshape(shape))


CODECS = {
    name: Codec(nearest=partial(_nearest_affine, encoding.bits, encoding.block))
    for name, encoding in ENCODINGS.items()
    if encoding.module == "affine"
}
