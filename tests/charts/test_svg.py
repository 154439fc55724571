"""Charts of a page: what they say without being seen, and where names and values come to lie."""

from __future__ import annotations

import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from gemmaq.charts import Labels, svg

LABELS = Labels("Quality <&> size", "GB", "nats", "a: 1 GB, KL 0.1")


def texts(chart: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(chart).iter("text")]


def test_a_chart_can_be_read_without_being_seen() -> None:
    chart = ElementTree.fromstring(svg.scatter(LABELS, [svg.Point("a", 1e9, 0.1), svg.Point("b", 2e9, 0.2)], 1e9))
    assert (chart.get("role"), chart.findtext("title"), chart.findtext("desc")) == (
        "img",
        LABELS.title,
        LABELS.description,
    )


def test_every_point_has_its_name_and_its_place() -> None:
    chart = svg.scatter(LABELS, [svg.Point("small", 1e9, 0.2), svg.Point("large", 3e9, 0.1)], 1e9)
    assert {"small", "large", "GB", "nats"} <= set(texts(chart))
    (x1, y1), (x2, y2) = [
        tuple(map(float, at)) for at in re.findall(r'<circle[^>]* cx="([\d.]+)" cy="([\d.]+)"', chart)
    ]
    assert x1 < x2 and y1 < y2  # the larger one to the right, the better one below


def test_names_of_equal_points_do_not_overlap() -> None:
    points = [svg.Point(f"model {n}", 1e9, 0.1) for n in range(12)]
    places = re.findall(r'<text class="n[^"]*" x="([\d.]+)" y="([\d.]+)"', svg.scatter(LABELS, points, 1e9))
    assert len({place for place in places}) == 12


def test_lines_are_named_at_their_ends_and_apart() -> None:
    drawn = [svg.Line(f"line {n}", (0.1, 0.2), (0.1, 0.3)) for n in range(8)]
    chart = svg.lines(LABELS, [100.0, 200.0], drawn)
    heights = sorted(float(y) for y in re.findall(r'<text class="n[^"]*" x="[\d.]+" y="([\d.]+)"', chart))
    assert len(heights) == 8 and min(after - before for before, after in pairwise(heights)) >= 16.9


@pytest.mark.parametrize(("value", "opacity"), [(0.0, 0.05), (0.25, 0.525), (1.0, 1.0)])
def test_the_strength_of_a_cell_goes_with_the_square_root(value: float, opacity: float) -> None:
    chart = svg.heat(Labels("error"), [("q", [value, None], "sum")], most=1.0, say=lambda v: f"{v:.2f} %")
    (cell,) = re.findall(r'fill-opacity="([\d.]+)"', chart)
    assert float(cell) == pytest.approx(opacity)
    assert f"layer 0, q: {value:.2f} %" in chart and {"q", "sum", "layer"} <= set(texts(chart))


def test_the_scale_says_what_colours_mean() -> None:
    assert texts(svg.scale(0.16, lambda v: f"{v:.2f}")) == ["0.00", "0.01", "0.04", "0.09", "0.16"]
