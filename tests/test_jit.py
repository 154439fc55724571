"""Compiled loops: they divide like C, and work where nothing can be cached."""

from __future__ import annotations

import math

import numba
import numpy as np
import pytest

from gemmaq import jit


def halves(values):
    total = 0.0
    for value in values:
        total += 1.0 / value
    return total


def test_division_by_zero_is_infinite() -> None:
    compiled = jit.compiled(halves)
    assert compiled(np.array([2.0, 4.0])) == 0.75
    assert math.isinf(compiled(np.array([0.0])))


def test_without_a_place_for_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    compile_ = numba.njit

    def no_cache(function, **options):
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return compile_(function, **options)

    monkeypatch.setattr(numba, "njit", no_cache)
    assert jit.compiled(halves)(np.array([2.0])) == 0.5
