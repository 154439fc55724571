"""Compiled loops over blocks, against numpy: extremes, ties between them, and the largest magnitude."""

from __future__ import annotations

import numpy as np
import pytest

from gemmaq.encodings import kernels


@pytest.mark.parametrize("width", [32, 64, 96])
def test_extremes_are_the_smallest_and_the_largest_of_each_group(width: int) -> None:
    rng = np.random.default_rng(width)
    bits = rng.integers(0, 1 << 32, (500, width), np.uint32)
    x = np.where(np.isfinite(bits.view(np.float32)), bits.view(np.float32), np.float32(0))
    x[0], x[1], x[2] = 0.0, np.abs(x[1]), -np.abs(x[2])
    lows, highs = np.empty(500, np.float32), np.empty(500, np.float32)
    kernels.extremes(x, lows, highs)
    assert np.array_equal(lows, x.min(axis=1)) and np.array_equal(highs, x.max(axis=1))


def test_a_negative_zero_is_smaller_than_a_positive_one() -> None:
    x = np.zeros((2, 32), np.float32)
    x[0, 7], x[1] = -0.0, -0.0
    lows, highs = np.empty(2, np.float32), np.empty(2, np.float32)
    kernels.extremes(x, lows, highs)
    assert np.signbit(lows).tolist() == [True, True] and np.signbit(highs).tolist() == [False, True]


@pytest.mark.parametrize("first", [-1.0, 1.0])
def test_of_two_extremes_of_one_magnitude_the_first_becomes_the_lowest_code(first: float) -> None:
    x = np.zeros((1, 32), np.float32)
    x[0, 3], x[0, 20] = first, -first
    codes, scales = np.empty((1, 32), np.uint8), np.empty(1, np.float32)
    kernels.nearest_signed(x, np.float32(8), codes, scales)
    assert codes[0, 3] == 0 and codes[0, 20] == 15 and scales[0] == -first / 8


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
def test_the_largest_magnitude_is_found_whatever_its_sign(dtype: type[np.unsignedinteger]) -> None:
    mask = dtype(np.iinfo(dtype).max >> 1)
    bits = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, 1000, dtype)
    assert kernels.largest_magnitude(bits, mask) == (bits & mask).max()
    assert kernels.largest_magnitude(bits[:1], mask) == bits[0] & mask
