"""Rows in several places are found again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gemmaq.files.runs import Run, within


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.data())
def test_every_row_is_found_where_it_lies(counts: list[int], data: st.DataObject) -> None:
    starts = [sum(counts[:at]) for at in range(len(counts))]
    runs = [Run(first, count, 100 * at) for at, (first, count) in enumerate(zip(starts, counts, strict=True))]
    first = data.draw(st.integers(0, sum(counts) - 1))
    count = data.draw(st.integers(0, sum(counts) - first))
    found = [run.offset + skipped + row for run, skipped, taken in within(runs, first, count) for row in range(taken)]
    everywhere = [run.offset + row for run in runs for row in range(run.count)]
    assert found == everywhere[first : first + count]
