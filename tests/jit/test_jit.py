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


def test_compiling_is_refused_where_a_limit_leaves_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """LLVM would end the process."""
    jit.compiled(halves)(np.array([2.0]))
    monkeypatch.setattr(jit, "room", lambda: 100 << 20)
    with pytest.raises(MemoryError, match="leaves 100 MiB, compiling takes"):
        numba.njit(halves)(np.array([2.0]))
    monkeypatch.setattr(jit, "room", lambda: None)
    assert numba.njit(halves)(np.array([2.0])) == 0.5


def test_who_watches_hears_when_compiling_begins_and_ends() -> None:
    """Once, though a loop calls others, which are compiled in the midst of it."""
    jit.compiled(halves)(np.array([2.0]))
    inner = numba.njit(halves)
    heard: list[bool] = []
    jit.watch(heard.append)
    try:
        assert numba.njit(lambda values: inner(values) + 1)(np.array([2.0])) == 1.5
    finally:
        jit.watch(bool)
    assert heard == [True, False]


def test_room_is_none_or_bytes() -> None:
    assert jit.room() is None or jit.room() > 0
