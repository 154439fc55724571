"""Figures of a publisher are complete: every size of the report has a cell in every quoted column."""

from __future__ import annotations

import pytest

from gemmaq.models.families import FAMILIES
from gemmaq.models.family import Family


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_figures_are_complete_and_of_known_sizes(family: Family) -> None:
    figures = family.published
    if figures is None:
        return
    names = [size.name for size in family.sizes]
    assert list(figures.cache_32k) == [name for name in names if name in figures.cache_32k]
    assert all(cells.keys() == figures.cache_32k.keys() for cells in figures.quoted.values())
    assert all(name in names and len(cells) == len(figures.load_columns) for name, cells in figures.load.items())
    assert figures.mobile.keys() <= set(names)
    assert set(figures.computed) | set(figures.quoted) == set(figures.widths)
    assert not set(figures.computed) & set(figures.quoted)
