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
    for table in figures.tables:
        assert all(name in names and len(cells) == len(table.columns) for name, cells in table.rows.items())
        assert len(set(table.columns)) == len(table.columns)
    report = figures.report
    if report is not None:
        assert list(report.cache_32k) == [name for name in names if name in report.cache_32k]
        assert all(cells.keys() == report.cache_32k.keys() for cells in report.quoted.values())
        assert set(report.computed) | set(report.quoted) == set(report.widths)
        assert not set(report.computed) & set(report.quoted)
