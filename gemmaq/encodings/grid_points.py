"""The nearest points of a grid for given scales: ggml's choice among the points near the rounded one.

A cell is 4 or 8 weights that share a point. Distances are f32 sums in the order of the reference (ggml-quants.c,
iq2_find_best_neighbour and iq3_find_best_neighbour); the first of the smallest wins.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gemmaq.encodings.lanes import ends, nearest_level
from gemmaq.encodings.vectors import spread, where_less
from gemmaq.jit import compiled

_ZERO = np.float32(0)
_ONE = np.float32(1)
_HALF = np.float32(0.5)
_MOST = np.finfo(np.float32).max


@compiled
def round_cell(x: Any, inverse: Any, grid: Any) -> Any:
    """Number of the point that the magnitudes of a cell, f32 [weights], round to for an inverse scale."""
    low, high = ends(0, grid.levels - 1)
    number = _ZERO
    for i in range(x.size - 1, -1, -1):
        number = number * np.float32(grid.levels) + nearest_level(_HALF * (inverse * x[i] - _ONE), low, high)
    return np.int32(number)


@compiled
def nearest_point(x: Any, root: Any, grid: Any, number: Any, scale: Any) -> Any:
    """Levels, packed, of the point nearest to a cell.

    Args:
        x: magnitudes of the weights, f32 [weights].
        root: square roots of what their errors count, f32 [weights].
        grid: a `Grid`.
        number: of the point that they round to.
        scale: f32.
    """
    start, stop = grid.starts[number], grid.starts[number + 1]
    best, chosen = _MOST, grid.near[start]
    if stop - start > 1:
        for n in range(start, stop):
            index = grid.near[n]
            far = _ZERO
            for i in range(x.size):
                error = scale * grid.odd[index, i] - x[i]
                far += root[i] * error * error
            if far < best:
                best, chosen = far, index
    return grid.packed[chosen]


@compiled
def nearest_points(x: Any, root: Any, grid: Any, number: Any, scales: Any) -> Any:
    """The same for a vector of scales for which the cell rounds to the same point: a vector."""
    start, stop = grid.starts[number], grid.starts[number + 1]
    chosen = spread(np.float32(grid.packed[grid.near[start]]))
    if stop - start == 1:
        return chosen
    best = spread(_MOST)
    for n in range(start, stop):
        index = grid.near[n]
        far = spread(_ZERO)
        for i in range(x.size):
            error = scales * spread(grid.odd[index, i]) - spread(x[i])
            far = far + spread(root[i]) * error * error
        chosen = where_less(far, best, spread(np.float32(grid.packed[index])), chosen)
        best = where_less(far, best, far, best)
    return chosen
