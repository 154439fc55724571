"""Measures of predictions, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gemmaq.evaluate.score import Score


def test_measures_of_four_tokens() -> None:
    score = Score(np.array([1.0, 2.0, 3.0, 2.0]), np.array([0.1, 0.2, 0.3, 0.4]), np.array([True, True, False, True]))
    assert score.perplexity == pytest.approx(math.exp(2))
    assert score.perplexity_stderr == pytest.approx(math.exp(2) * math.sqrt(2 / 3) / 2)
    assert score.kl_mean == pytest.approx(0.25)
    assert score.kl_stderr == pytest.approx(math.sqrt(0.05 / 3) / 2)
    assert score.kl_at(50) == pytest.approx(0.25) and score.kl_at(99) == pytest.approx(0.397)
    assert score.kl_at(100) == 0.4
    assert score.top1 == 0.75


def test_changes_are_those_of_the_probability_of_the_token() -> None:
    before = Score(-np.log([0.5, 0.25]), np.zeros(2), np.ones(2, bool))
    after = Score(-np.log([0.4, 0.3]), np.zeros(2), np.ones(2, bool))
    np.testing.assert_allclose(after.changes(before), [-0.1, 0.05])


def test_one_token_has_no_error() -> None:
    score = Score(np.array([1.0]), np.array([0.0]), np.array([True]))
    assert (score.perplexity_stderr, score.kl_stderr) == (0, 0)
