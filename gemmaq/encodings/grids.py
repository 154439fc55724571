"""The grids of ggml's IQ2 and IQ3 types: which magnitudes a few neighbouring weights may have together, as tables.

A grid is a list of points, each the levels of 4 or 8 weights. Levels are counted from 0; in the search for codes level
l stands for the odd number 2 l + 1, as in ggml. The points are data of gguf-py. Near a point off the grid, ggml looks
only at the points of the grid in the one, two or three smallest distances from it (ggml-quants.c, iq2xs_init_impl and
iq3xs_init_impl). These lists are made here, once a process.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gemmaq.encodings import F32

    I32 = NDArray[np.int32]

DISTANCES = {"iq2_xxs": 2, "iq2_xs": 2, "iq2_s": 1, "iq3_xxs": 2, "iq3_s": 3}
"""Type -> how many distances from a point off the grid ggml looks at."""


class Grid(NamedTuple):
    """The points of a type's grid, and which of them are near any point; compiled loops take it as it is.

    The number of a point is its levels as digits in base `levels`, the first weight's lowest. That is not the number
    that a file stores: files store the index in the list of points.

    Attributes:
        levels: number of levels of a weight.
        points: levels of every point, u8 [points, weights].
        odd: the same as 2 l + 1, f32.
        bits: bits of a level in `packed`.
        packed: levels of every point, the first weight's lowest, i32 [points].
        indices: number of a point -> its index on the grid, -1 off the grid; i32 [levels ** weights].
        starts: number of a point -> where its nearest points begin in `near`, up to those of the next one; i32.
        near: indices of nearest points, the nearest first; a point on the grid has itself alone. i32.
    """

    levels: int
    points: NDArray[np.uint8]
    odd: F32
    bits: int
    packed: I32
    indices: I32
    starts: I32
    near: I32


@cache
def grid(name: str) -> Grid:
    """The grid of a type."""
    points, levels = _points(name), len(_source(name).grid_map)
    places = levels ** np.arange(points.shape[1])
    bits = int(levels - 1).bit_length()
    packed = (points.astype(np.int32) << (bits * np.arange(points.shape[1]))).sum(axis=1, dtype=np.int32)
    indices = np.full(levels ** points.shape[1], -1, np.int32)
    indices[points @ places] = np.arange(len(points))
    every = (np.arange(len(indices))[:, None] // places % levels).astype(np.float32)
    counts, near = _nearest(every, points.astype(np.float32), DISTANCES[name])
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return Grid(levels, points, (2 * points + 1).astype(np.float32), bits, packed, indices, starts, near)


def _nearest(every: F32, points: F32, distances: int) -> tuple[NDArray[np.int64], I32]:
    """How many points of the grid are near each of `every`, f32 [n, weights], and their indices one after another.

    Those at the same distance are in the order of the grid. All numbers are small integers, so f32 is exact.
    """
    squares = np.square(every).sum(axis=1)[:, None] + np.square(points).sum(axis=1) - 2 * (every @ points.T)
    limits = squares.min(axis=1, keepdims=True)
    on_grid = limits == 0
    for _ in range(distances - 1):
        further = np.where(squares > limits, squares, np.inf).min(axis=1, keepdims=True)
        limits = np.where(on_grid, limits, further)
    rows, indices = np.nonzero(squares <= limits)
    order = np.lexsort((indices, squares[rows, indices], rows))
    return np.bincount(rows, minlength=len(every)), indices[order].astype(np.int32)


def _points(name: str) -> NDArray[np.uint8]:
    """Levels of every point, u8 [points, weights]."""
    source = _source(name)
    source.init_grid()
    values: F32 = source.grid.reshape(source.grid_shape)
    return np.searchsorted(np.array(source.grid_map, np.float32), values).astype(np.uint8)


def _source(name: str) -> Any:
    """What gguf-py has of a type."""
    import gguf.quants

    return getattr(gguf.quants, name.upper())
