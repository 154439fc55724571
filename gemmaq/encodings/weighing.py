"""How much the error of each weight counts in a search for scales, given an importance matrix.

As in ggml (ggml-quants.c, quantize_row_*_impl) it is the mean squared input of the weight's column times
sqrt(mean square + square of the weight); the mean is that of the row or, for K types, of the super-block.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gemmaq.jit import compiled

if TYPE_CHECKING:
    from gemmaq.encodings import F32

_ZERO = np.float32(0)


@compiled
def _mean_squares(x: Any, factor: Any, out: Any) -> None:
    rows, columns = x.shape[0] // 4 * 4, np.float32(x.shape[1])
    for r in range(0, rows, 4):  # side by side: each sum waits for itself
        first, second, third, fourth = _ZERO, _ZERO, _ZERO, _ZERO
        for j in range(x.shape[1]):
            first += x[r, j] * x[r, j]
            second += x[r + 1, j] * x[r + 1, j]
            third += x[r + 2, j] * x[r + 2, j]
            fourth += x[r + 3, j] * x[r + 3, j]
        out[r], out[r + 1], out[r + 2], out[r + 3] = first, second, third, fourth
    for r in range(rows, x.shape[0]):
        total = _ZERO
        for j in range(x.shape[1]):
            total += x[r, j] * x[r, j]
        out[r] = total
    for r in range(x.shape[0]):
        out[r] = factor * out[r] / columns


@compiled
def _weigh(x: Any, importance: Any, squares: Any, out: Any) -> None:
    across, share = importance.shape[0], x.shape[0] // squares.size
    for g in range(x.shape[0]):
        mean, at = squares[g // share], g % across
        for i in range(x.shape[1]):
            out[g, i] = importance[at, i] * np.sqrt(mean + x[g, i] * x[g, i])


def mean_squares(x: F32, factor: float = 1) -> F32:
    """Mean square of every row, x f32 [rows, columns], times a factor: f32 [rows].

    Added up from left to right as ggml does, and multiplied before it is divided.
    """
    out = np.empty(len(x), np.float32)
    _mean_squares(x, np.float32(factor), out)
    return out


def weigh(groups: F32, squares: F32, columns: F32) -> F32:
    """Importance of every weight, f32 [groups, n].

    Args:
        groups: whole rows, f32 [groups, n].
        squares: mean squares of equal parts of them, f32 [parts]: parts are whole groups.
        columns: importance of every column, f32 [columns].
    """
    out = np.empty_like(groups)
    _weigh(groups, columns.reshape(-1, groups.shape[1]), squares, out)
    return out


def squares(groups: F32) -> F32:
    """The squares of weights: their importance in ggml's types with a codebook or a grid where there is no matrix."""
    with np.errstate(over="ignore", under="ignore"):
        return groups * groups
