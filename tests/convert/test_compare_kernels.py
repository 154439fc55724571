"""Sums of squares in compiled loops, against numpy's."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gemmaq.convert.compare_kernels import square_sums


@pytest.mark.parametrize("count", [1, 7, 32, 4099, 1 << 19])
@pytest.mark.parametrize("shifts", [(0.0, 0.0), (-1.0, 1.0)])
def test_sums_agree_with_those_of_numpy_in_float64(count: int, shifts: tuple[float, float]) -> None:
    rng = np.random.default_rng(count)
    reference = (rng.standard_normal(count) * 10.0 ** rng.integers(-6, 4, count)).astype(np.float32)
    weights = reference + (rng.standard_normal(count) * 0.01).astype(np.float32)
    own, wanted = weights + np.float32(shifts[0]), reference + np.float32(shifts[1])
    expected = [math.fsum(np.square(array, dtype=np.float64)) for array in (own - wanted, wanted)]
    assert square_sums(weights, shifts[0], reference, shifts[1]) == pytest.approx(expected, rel=1e-12)


def test_equal_weights_are_no_distance_from_each_other_even_infinite_ones() -> None:
    weights = np.array([[1.0, np.inf], [-np.inf, 2.0]], np.float32)
    assert square_sums(weights, 0.0, weights.copy(), 0.0) == (0.0, math.inf)


@pytest.mark.parametrize("damaged", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_infinitely_far(damaged: float) -> None:
    weights = np.array([1.0, 2.0], np.float32)
    assert square_sums(np.array([1.0, damaged], np.float32), 0.0, weights, 0.0) == (math.inf, 5.0)


def test_rows_in_another_order_are_summed_in_that_order() -> None:
    weights = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert square_sums(weights.T, 0.0, weights.T.copy(), 0.0)[0] == 0.0
