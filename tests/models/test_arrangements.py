"""Arrangements keep every number, and give it back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemmaq.models.arrangements import Arrangement, permuted, reshaped


def numbers(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32) * 8


@given(st.permutations(range(4)))
def test_permuted_axes_come_back(axes: list[int]) -> None:
    array = numbers((2, 3, 4, 5))
    arrangement = permuted(array.shape, tuple(axes))
    stored = arrangement.store(array)
    np.testing.assert_array_equal(stored.reshape(arrangement.shape), array.transpose(axes))
    np.testing.assert_array_equal(arrangement.restore(stored), array)
    assert arrangement.moves and arrangement.mixes(2 * 3 * 4)


def test_columns_are_permuted_inside_rows_of_another_view() -> None:
    array = numbers((2, 12))
    arrangement = Arrangement((2, 12), (2, 2, 2, 3), (0, 3, 1, 2))
    np.testing.assert_array_equal(arrangement.store(array)[1, :4], array[1, ::3])
    np.testing.assert_array_equal(arrangement.store(array[1:]), arrangement.store(array)[1:])
    assert arrangement.mixes(24) and not arrangement.mixes(2)
    np.testing.assert_array_equal(arrangement.restore(arrangement.store(array)), array)


def test_softplus_is_undone_to_rounding() -> None:
    array = np.array([-6, -1, 0, 0.5, 3, 40], np.float32)
    stored = Arrangement((6,), softplus=True).store(array)
    np.testing.assert_allclose(stored, np.log1p(np.exp(array.astype(np.float64))), rtol=1e-6)
    np.testing.assert_allclose(Arrangement((6,), softplus=True).restore(stored), array, atol=1e-4)


def test_another_shape_moves_nothing() -> None:
    found = reshaped((), (1,))
    assert found is not None and found.shape == (1,) and not found.moves
    assert reshaped((3, 4), (3, 4)) is None
    with pytest.raises(AssertionError):
        reshaped((3,), (4,))
