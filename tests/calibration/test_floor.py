"""Experts that saw few tokens get a share of what the others saw."""

from __future__ import annotations

import numpy as np

from gemmaq.calibration.floor import LEAST, entry, told


def test_what_an_expert_lacks_is_average() -> None:
    counts = np.array([3 * LEAST, LEAST // 2, 0])
    means = np.array([[1.0, 4.0], [9.0, 2.0], [0.0, 0.0]])
    sums = means * counts[:, None]
    found = entry(sums, counts)
    average = sums.sum(axis=0) / counts.sum()
    wanted = np.stack([means[0], (means[1] + average) / 2, average])
    np.testing.assert_allclose(found.sums.reshape(3, 2) / found.counts[:, None], wanted, rtol=1e-6)
    assert list(found.counts) == [3 * LEAST, LEAST, LEAST]


def test_a_matrix_that_every_token_passes_keeps_what_it_saw() -> None:
    found = entry(np.array([[5.0, 7.0]]), np.array([3]))
    assert list(found.sums) == [5, 7] and list(found.counts) == [3]


def test_few_tokens_are_told() -> None:
    enough = np.full(4, LEAST)
    assert told([enough, enough], LEAST, "x") == told([], LEAST, "x") == ()
    few = np.array([0, LEAST - 1, LEAST, 5 * LEAST])
    (said,) = told([enough, few], LEAST, "they are averaged")
    assert said.startswith("2 of 8 experts, in 1 of 2 layers, saw fewer than 128 tokens: they are")
