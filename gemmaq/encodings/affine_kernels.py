"""Compiled loops for MLX's affine types. Source: mlx, affine_quantize."""

from __future__ import annotations

from typing import Any

import numpy as np

from gemmaq.encodings.kernels import extremes
from gemmaq.jit import compiled

_SMALLEST = np.float32(1e-7)
_ZERO = np.float32(0)


@compiled
def scale_and_minimum(low: Any, high: Any, levels: Any) -> Any:
    """Scale and minimum of a group from its range, by the rule of mx.quantize.

    The end of larger magnitude is exact, and so is 0 if the range spans it.
    """
    falling = abs(low) <= abs(high)
    scale = max((high - low) / levels, _SMALLEST)
    scale = -scale if falling else scale
    edge = high if falling else low
    steps = np.float32(np.rint(edge / scale))
    exact = steps != _ZERO
    return (edge / steps if exact else scale), (edge if exact else _ZERO)


@compiled
def nearest(x: Any, levels: Any, codes: Any, scales: Any, minima: Any) -> None:
    """Nearest codes for the scale and minimum of each group's range.

    Shapes: x f32 [groups, n], codes u8 alike, scales and minima f32 [groups].
    """
    highs = np.empty(x.shape[0], np.float32)
    extremes(x, minima, highs)
    for g in range(x.shape[0]):
        scales[g], minima[g] = scale_and_minimum(minima[g], highs[g], levels)
    for g in range(x.shape[0]):
        scale, minimum = scales[g], minima[g]
        for j in range(x.shape[1]):
            level = np.float32(np.rint((x[g, j] - minimum) / scale))
            codes[g, j] = np.uint8(np.int32(min(max(level, _ZERO), levels)))
