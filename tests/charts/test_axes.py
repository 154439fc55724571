"""Axes: where values lie, and which are marked."""

from __future__ import annotations

import pytest

from gemmaq.charts.axes import Axis, divergences, short


def test_an_axis_maps_its_ends_to_its_ends() -> None:
    axis = Axis(0.01, 1.0, 300, 0, log=True)
    assert (axis.at(0.01), axis.at(1.0)) == (300, 0)
    assert axis.at(0.1) == pytest.approx(150)
    assert Axis(2, 4, 0, 100).at(3) == 50


@pytest.mark.parametrize(("values", "log"), [([0.1, 0.2], False), ([0.001, 0.2], True), ([0.0], False)])
def test_divergences_are_logarithmic_where_they_differ_much(values: list[float], log: bool) -> None:
    assert divergences(values, 0, 1, 6).log is log


def test_marks_are_round_numbers_within_the_ends() -> None:
    assert Axis(0, 1.2, 0, 1).ticks == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2])
    assert Axis(0.004, 0.31, 0, 1, log=True).ticks == pytest.approx([0.01, 0.03, 0.1, 0.3])


def test_long_names_lose_their_middle() -> None:
    assert short("a" * 26) == "a" * 26
    assert len(short("a" * 30 + "end")) <= 26 and short("a" * 30 + "end").endswith("end")
