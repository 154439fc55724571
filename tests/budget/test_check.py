"""Measures over several kinds of text: every kind counts alike."""

from __future__ import annotations

import numpy as np
import pytest

from gemmaq.budget.check import Measured, held_out
from gemmaq.evaluate.score import Score


def test_every_kind_counts_alike() -> None:
    short = Score(np.array([1.0, 3.0]), np.array([0.1, 0.3]), np.array([True, False]))
    long = Score(np.full(100, 4.0), np.full(100, 0.6), np.ones(100, bool))
    measured = Measured({"prose": short, "code": long})
    assert measured.kl == pytest.approx(0.4)
    assert measured.top1 == pytest.approx(0.75)
    assert measured.perplexity == pytest.approx(np.exp(3))
    assert measured.stderr == pytest.approx(short.kl_stderr / 2)


def test_text_for_the_check_comes_with_gemmaq() -> None:
    assert held_out().texts and all(text.documents for text in held_out().texts.values())
