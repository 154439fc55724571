"""Compiled loops of method importance: scales and minima of MLX's types, which have to be BF16 numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from gemmaq.encodings.rounding import round_bf16
from gemmaq.jit import compiled

_ZERO = np.float32(0)


@compiled
def _assess(x: Any, weights: Any, scale: Any, minimum: Any, top: Any, codes: Any) -> Any:
    """Nearest codes of a group; returns the weighted squared error and the best minimum for these codes."""
    inverse = np.float32(1) / scale if scale != _ZERO else _ZERO
    error, rest, total = _ZERO, _ZERO, _ZERO
    for i in range(x.size):
        level = min(top, max(_ZERO, np.float32(np.rint((x[i] - minimum) * inverse))))
        codes[i] = np.uint8(np.int32(level))
        distance = x[i] - scale * level
        error += weights[i] * ((distance - minimum) * (distance - minimum))
        rest += weights[i] * distance
        total += weights[i]
    return error, rest / total if total > _ZERO else minimum


@compiled
def settle(x: Any, weights: Any, top: Any, fitted: Any, best: Any, codes: Any) -> None:
    """Round scales and minima to BF16 and choose the nearest codes, by whichever of three proposals errs least.

    The proposals are `best`, `fitted`, and `fitted` with its minimum fitted again to the rounded scale.

    Shapes: x f32 [groups, n], weights alike, how much errors count, codes u8 alike; fitted and best, which is
    overwritten, f32 [2 or more, groups]: scales and minima. `top` is the largest code, f32.
    """
    size = x.shape[1]
    tried = np.empty(size, np.uint8)
    for g in range(x.shape[0]):
        best[0, g], best[1, g] = round_bf16(best[0, g]), round_bf16(best[1, g])
        least, _ = _assess(x[g], weights[g], best[0, g], best[1, g], top, codes[g])
        scale, minimum = round_bf16(fitted[0, g]), fitted[1, g]
        for _ in range(2):
            minimum = round_bf16(minimum)
            error, refitted = _assess(x[g], weights[g], scale, minimum, top, tried)
            if error < least:
                least = error
                best[0, g], best[1, g] = scale, minimum
                for i in range(size):
                    codes[g, i] = tried[i]
            minimum = refitted
