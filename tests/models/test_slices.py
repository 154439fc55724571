"""Slices of a stack."""

from __future__ import annotations

from gemmaq.models.slices import Slice


def test_a_slice_counts_the_rows_of_all_its_runs() -> None:
    assert Slice("x", (2, 3, 4), ((0, 3), (6, 3))).rows == 6
