"""Working memory of the searches for scales: many groups side by side, a lane each.

It is one array with constant offsets, used in loops of constant length: so the compiler knows that no parts of it
overlap and that no index is negative, and vectorises.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gemmaq.encodings.rounding import MAGIC
from gemmaq.jit import compiled

LANES = 64
"""Groups searched together: enough to vectorise, few enough for the L1 cache."""
LARGEST = 128
"""Weights of the largest group."""
WEIGHTS = LARGEST * LANES
"""Offset of the importances: weight i of the group in lane g is at i * LANES + g, and its importance so far on."""
UNROLLED = 4
"""Weights that a loop over lanes takes at once: it visits the sums in memory less often. Groups are multiples of it."""
OWN = 3 * WEIGHTS
"""Offset of what belongs to the search alone: numbers of each lane. So does what begins at 2 * WEIGHTS."""
ROOM = OWN + 16 * LANES
"""Numbers of the whole array."""

_MIDDLE = np.int32(0x4B400000)  # the bits of MAGIC: an integer n is added to its bits where it is added to the number
_MANTISSA = np.int32(0x007FFFFF)
_EXPONENT = np.int32(0x4B000000)


@compiled
def ends(low: Any, high: Any) -> Any:
    """The smallest and the largest level, integers -> what `nearest_level` takes them as."""
    return np.int32(_MIDDLE + low), np.int32(_MIDDLE + high)


@compiled
def nearest_level(value: Any, low: Any, high: Any) -> Any:
    """The integer next to an f32, ties to even, between two `ends`: f32.

    As in ggml for NaN and numbers of any size, too: its nearest_int keeps 23 bits of the sum of the number and MAGIC.
    """
    bits = np.int32((np.float32(value + MAGIC).view(np.int32) & _MANTISSA) | _EXPONENT)
    bits = bits if bits > low else low
    bits = bits if bits < high else high
    return np.int32(bits).view(np.float32) - MAGIC


@compiled
def _transpose(x: Any, start: Any, count: Any, lanes: Any) -> None:
    """Copy `count` groups from `start` on, x f32 [groups, n], to lanes f32 [n * LANES]."""
    eights = count // 8 * 8
    for g in range(0, eights, 8):  # side by side, which saves half of the time
        for i in range(x.shape[1]):
            for k in range(8):
                lanes[i * LANES + g + k] = x[start + g + k, i]
    for g in range(eights, count):
        for i in range(x.shape[1]):
            lanes[i * LANES + g] = x[start + g, i]


@compiled
def fill(room: Any, x: Any, weights: Any, start: Any) -> Any:
    """Copy groups from `start` on, and what their errors count, into the lanes; returns how many groups there are.

    Shapes: x f32 [groups, n]; weights alike, or [0, n] if the search weighs errors by itself.
    """
    count = min(LANES, x.shape[0] - start)
    _transpose(x, start, count, room[:WEIGHTS])
    if weights.shape[0] > 0:
        _transpose(weights, start, count, room[WEIGHTS : 2 * WEIGHTS])
    return count


@compiled
def weigh_by_square(room: Any, size: Any) -> None:
    """Let the error of each weight count as much as its square."""
    for i in range(size * LANES):
        room[WEIGHTS + i] = room[i] * room[i]


@compiled
def weigh_by_size(room: Any, size: Any, spread: Any) -> None:
    """Let the error of each weight count as much as its magnitude, or, with `spread`, rms of its group + magnitude."""
    for g in range(LANES):
        room[OWN + g] = np.float32(0)
    for part in range(LARGEST // UNROLLED if spread else 0):
        if part * UNROLLED >= size:
            break
        for g in range(LANES):
            total = room[OWN + g]
            for k in range(UNROLLED):
                x = room[(part * UNROLLED + k) * LANES + g]
                total += x * x
            room[OWN + g] = total
    for g in range(LANES):
        room[OWN + g] = np.sqrt(room[OWN + g] / np.float32(size))
    for part in range(LARGEST // UNROLLED):
        if part * UNROLLED >= size:
            break
        for g in range(LANES):
            rms = room[OWN + g]
            for k in range(UNROLLED):
                i = (part * UNROLLED + k) * LANES + g
                room[WEIGHTS + i] = rms + abs(room[i])
