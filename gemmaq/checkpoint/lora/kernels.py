"""Compiled loops of merging: products of low rank, and norms.

Sums are taken in the order of PyTorch's kernels for x86-64 with AVX2, which PEFT runs, so that every f32 is the same as
there: products over the rank by fused multiplication and addition in blocks, norms of rows in eight lanes, norms of
columns row by row. The order is the same on every processor, whatever the number of rows or threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gemmaq.jit import compiled, intrinsic

_BLOCK = 192
"""Ranks that are summed before the sum is added to those before; of fewer than two blocks each has half the ranks."""
LANES = 8
_ZERO = np.float32(0)


@intrinsic
def _fused(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """The f32 number a * b + c, rounded once."""
    from numba import types

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fma(*arguments)

    return types.float32(types.float32, types.float32, types.float32), generate


@compiled
def add_product(weights: Any, b: Any, a: Any, scaling: Any) -> None:
    """Add `scaling` times the product of `b` and `a` to `weights`, rounded to f32 after each of the three steps.

    Shapes: weights f32 [rows, columns], changed in place; b f32 [rows, rank]; a f32 [rank, columns]; scaling f32.
    """
    rows, columns = weights.shape
    rank = a.shape[0]
    block = rank if rank <= _BLOCK else rank // 2 if rank < 2 * _BLOCK else _BLOCK
    total, part = np.empty(columns, np.float32), np.empty(columns, np.float32)
    for i in range(rows):
        for j in range(columns):
            total[j] = _ZERO
        for start in range(0, rank, block):
            for j in range(columns):
                part[j] = _ZERO
            for k in range(start, min(rank, start + block)):
                factor = b[i, k]
                for j in range(columns):
                    part[j] = _fused(factor, a[k, j], part[j])
            for j in range(columns):
                total[j] = total[j] + part[j]
        for j in range(columns):
            weights[i, j] = weights[i, j] + total[j] * scaling


@compiled
def set_magnitudes(weights: Any, magnitudes: Any) -> None:
    """Scale every row to a norm, as DoRA does: `magnitude / norm` is rounded to f32 before it multiplies.

    Shapes: weights f32 [rows, columns], changed in place; magnitudes f32 [rows].
    """
    columns = weights.shape[1]
    whole = columns - columns % LANES
    lanes = np.empty(LANES, np.float32)
    for i in range(weights.shape[0]):
        for lane in range(LANES):
            lanes[lane] = _ZERO
        for j in range(0, whole, LANES):
            for lane in range(LANES):
                lanes[lane] = lanes[lane] + weights[i, j + lane] * weights[i, j + lane]
        total = lanes[0]
        for lane in range(1, LANES):
            total = total + lanes[lane]
        for j in range(whole, columns):
            total = total + weights[i, j] * weights[i, j]
        factor = magnitudes[i] / np.sqrt(total)
        for j in range(columns):
            weights[i, j] = factor * weights[i, j]


@compiled
def add_squares(weights: Any, sums: Any) -> None:
    """Add the square of every weight to the sum of its column; weights f32 [rows, columns], sums f32 [columns]."""
    for i in range(weights.shape[0]):
        for j in range(weights.shape[1]):
            sums[j] = sums[j] + weights[i, j] * weights[i, j]
