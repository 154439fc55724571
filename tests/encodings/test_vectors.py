"""Vectors in compiled loops: eight lanes at once, each as a number alone."""

from __future__ import annotations

import numpy as np

from gemmaq.encodings.vectors import WIDTH, load, spread, store, where_less
from gemmaq.jit import compiled


@compiled
def work(numbers: np.ndarray, factor: np.float32, out: np.ndarray) -> None:
    first, second = load(numbers, 1), load(numbers, 1 + WIDTH)
    store(out, 0, first * spread(factor) + second - spread(np.float32(0.5)))
    store(out, WIDTH, where_less(first, second, first, second))


def test_lanes_are_numbers_of_an_array() -> None:
    numbers = np.random.default_rng(1).standard_normal(20).astype(np.float32)
    out = np.zeros(20, np.float32)
    work(numbers, np.float32(1.7), out)
    first, second = numbers[1 : 1 + WIDTH], numbers[1 + WIDTH : 1 + 2 * WIDTH]
    assert np.array_equal(out[:WIDTH], first * np.float32(1.7) + second - np.float32(0.5))
    assert np.array_equal(out[WIDTH : 2 * WIDTH], np.minimum(first, second))
    assert not out[2 * WIDTH :].any()


def test_what_is_no_number_is_not_less() -> None:
    numbers = np.full(20, np.nan, np.float32)
    out = np.zeros(20, np.float32)
    numbers[1 + WIDTH : 1 + 2 * WIDTH] = 3
    work(numbers, np.float32(1), out)
    assert np.array_equal(out[WIDTH : 2 * WIDTH], np.full(WIDTH, 3, np.float32))
