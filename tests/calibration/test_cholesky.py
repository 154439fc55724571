"""Cholesky factor and inverse in blocks: torch's numbers, the same bits with any number of workers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from gemmaq.inference.device import open_device
from oracles import need

SIZES = [1, 100, 512, 700]


@pytest.fixture(scope="module", autouse=True)
def _torch(require: Callable[[bool, str], None]) -> None:
    need(require, "torch", "transformers")


def positive(size: int) -> np.ndarray:
    x = np.random.default_rng(size).standard_normal((size, 2 * size + 8))
    return (x @ x.T / size).astype(np.float32)


def factors(matrix: np.ndarray, threads: int) -> tuple[np.ndarray, np.ndarray]:
    import torch

    from gemmaq.calibration.cholesky import cholesky, inverse

    with open_device("cpu", threads) as device:
        work = torch.from_numpy(matrix.copy())
        assert cholesky(work, device)
        lower = work.tril()
        return lower.numpy(), inverse(lower.mT.contiguous(), device).numpy()


@pytest.mark.parametrize("size", SIZES)
def test_the_factor_and_its_inverse(size: int) -> None:
    matrix = positive(size)
    lower, inverted = factors(matrix, 2)
    np.testing.assert_allclose(lower, np.linalg.cholesky(matrix.astype(np.float64)), atol=2e-4)
    np.testing.assert_allclose(lower.T.astype(np.float64) @ inverted, np.eye(size), atol=2e-3)
    assert np.array_equal(inverted, np.triu(inverted))


def test_any_number_of_workers_gives_the_same_bits() -> None:
    matrix = positive(700)
    for one, two in zip(factors(matrix, 1), factors(matrix, 3), strict=True):
        assert np.array_equal(one, two)


@pytest.mark.parametrize("at", [0, 600])
@pytest.mark.parametrize("value", [-1.0, np.nan])
def test_a_matrix_that_is_not_positive_definite_is_told(at: int, value: float) -> None:
    import torch

    from gemmaq.calibration.cholesky import cholesky

    matrix = positive(700)
    matrix[at, at] = value
    with open_device("cpu", 1) as device:
        assert not cholesky(torch.from_numpy(matrix), device)
