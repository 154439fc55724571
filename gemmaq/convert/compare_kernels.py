"""Compiled loops that measure how far weights are from others."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from gemmaq.jit import compiled, compiled_with

if TYPE_CHECKING:
    from gemmaq.encodings import F32

_NOTHING = np.float32(0)


@compiled
def _shifted(weight: Any, shift: Any) -> Any:
    """A weight with what its tensor adds, f32."""
    return weight + shift


@compiled
def _distance(first: Any, second: Any) -> Any:
    """The difference of two weights, f32; 0 between equal ones, infinite ones included."""
    return first - second if first != second else _NOTHING


@compiled_with(fastmath={"reassoc"})  # only sums may change their order: the numbers come from functions without
def _sums(weights: Any, weights_shift: Any, reference: Any, reference_shift: Any) -> Any:
    """Sums of squared differences and of squared references, f64, of f32 [n] each."""
    error = square = 0.0
    for i in range(weights.size):
        wanted = _shifted(reference[i], reference_shift)
        distance = np.float64(_distance(_shifted(weights[i], weights_shift), wanted))
        error += distance * distance
        square += np.float64(wanted) * np.float64(wanted)
    return error, square


def square_sums(weights: F32, weights_shift: float, reference: F32, reference_shift: float) -> tuple[float, float]:
    """The sum of squared differences between two arrays, and the sum of squares of the second.

    Differences are rounded to f32, sums to f64 in any order, so that they agree with exact ones to 1e-12 of themselves.
    A sum that is no number is infinite.

    Args:
        weights: f32 of any shape.
        weights_shift: added to each of them, in f32.
        reference: f32 of the same shape.
        reference_shift: added to each of these.
    """
    arrays = [np.ascontiguousarray(array).reshape(-1) for array in (weights, reference)]
    sums = _sums(arrays[0], np.float32(weights_shift), arrays[1], np.float32(reference_shift))
    error, square = (math.inf if math.isnan(one) else one for one in sums)
    return error, square
