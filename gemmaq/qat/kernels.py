"""Compiled loops of training: round blocks of weights as the converter does, in one pass."""

from __future__ import annotations

from typing import Any

import numpy as np

from gemmaq.encodings.kernels import _first_extreme, _inverse, extremes
from gemmaq.encodings.rounding import MAGIC, round_portable
from gemmaq.jit import compiled

_ZERO = np.float32(0)
_HALF = np.float32(0.5)
_EIGHT = np.float32(8)
_FIFTEEN = np.float32(15)


@compiled
def values_q4_0(x: Any, out: Any) -> None:
    """Round f32 [blocks, 32] to portable Q4_0, f32 [blocks, 32]."""
    lows = np.empty(x.shape[0], np.float32)
    highs = np.empty(x.shape[0], np.float32)
    extremes(x, lows, highs)
    for b in range(x.shape[0]):
        extreme = highs[b] if highs[b] > -lows[b] else lows[b]
        if highs[b] == -lows[b]:
            extreme = _first_extreme(x[b], highs[b])
        d = extreme / -_EIGHT
        scale = round_portable(d)
        inverse = _inverse(scale)
        if scale == d:  # ggml's own rounding
            bias = _ZERO if inverse == _ZERO and d != _ZERO else _EIGHT + _HALF
            for j in range(x.shape[1]):  # a constant would be unrolled, not vectorised
                code = np.float32(min(np.int32(15), np.int32(x[b, j] * inverse + bias)))
                out[b, j] = scale * (code - _EIGHT)
        else:
            for j in range(x.shape[1]):
                level = (x[b, j] * inverse + MAGIC) - MAGIC
                out[b, j] = scale * (min(_FIFTEEN, max(_ZERO, level + _EIGHT)) - _EIGHT)


@compiled
def values_on(x: Any, scales: Any, out: Any) -> None:
    """Round f32 [blocks, 32] to Q4_0 with fixed scales, f32 [blocks], as `round_to_scales` chooses codes."""
    for b in range(x.shape[0]):
        scale = scales[b]
        inverse = _inverse(scale)
        for j in range(x.shape[1]):
            level = (x[b, j] * inverse + MAGIC) - MAGIC
            out[b, j] = scale * (min(_FIFTEEN, max(_ZERO, level + _EIGHT)) - _EIGHT)
