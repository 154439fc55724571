"""The frontier: marks, the hull, names that do not overlap, and what cards hold."""

from __future__ import annotations

import re
from itertools import combinations
from xml.etree import ElementTree

import pytest

from gemmaq.charts import Labels, frontier
from gemmaq.charts.frontier import Limit, Model

LABELS = Labels("Quality against size", "GB", "KL, nats", "two types & a mixture")
UNIFORM = [
    Model("Q4_0", 2_000, 0.2),
    Model("Q5_0", 2_400, 0.05),
    Model("Q5_1", 2_600, 0.06),
    Model("Q8_0", 4_000, 0.001),
]
CHOSEN = Model("4.60bpw", 2_100, 0.04, chosen=True)


def boxes(chart: str) -> list[tuple[float, float, float, float]]:
    """Where names lie, in the width that letters have in a wide font."""
    found = re.findall(r'<text class="n[^"]*" x="([-\d.]+)" y="([-\d.]+)">([^<]*)', chart)
    return [(float(x), float(y) - 12, float(x) + 9 * len(name), float(y) + 4) for x, y, name in found]


def test_the_hull_has_the_types_that_no_blend_of_others_beats() -> None:
    above = Model("Q5_K", 3_000, 0.045)
    assert [model.label for model in frontier.hull([above, *UNIFORM, CHOSEN])] == ["Q4_0", "Q5_0", "Q8_0"]
    assert frontier.hull([CHOSEN, Model("BF16", 9_000, 0.0)]) == []


def test_chosen_mixtures_have_marks_of_their_own_and_are_not_on_the_line() -> None:
    chart = frontier.chart(LABELS, [*UNIFORM, CHOSEN], [], 1e3)
    assert chart.count("<circle") == 4 + 1 and chart.count("<path") == 1 + 1  # and one each in the legend
    (line,) = re.findall(r'<polyline[^>]* points="([^"]*)"', chart)
    assert len(line.split()) == 3
    assert "chosen tensor by tensor" in chart
    assert "chosen tensor by tensor" not in frontier.chart(LABELS, UNIFORM, [], 1e3)


@pytest.mark.parametrize("count", [3, 12])
def test_names_lie_apart(count: int) -> None:
    models = [Model(f"type {n}", 2_000 + 3 * n, 0.1 / (1 + 0.02 * n), chosen=n % 2 == 1) for n in range(count)]
    found = boxes(frontier.chart(LABELS, models, [Limit("8 GB", 2_010)], 1e3))
    assert len(found) == count
    for a, b in combinations(found, 2):
        assert not (a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3])


def test_cards_are_drawn_where_they_fall_in_the_range() -> None:
    limits = [Limit("6 GB", 100), Limit("8 GB", 3_000), Limit("24 GB", 90_000)]
    assert [limit.name for limit in frontier.within(UNIFORM, limits)] == ["8 GB"]
    chart = frontier.chart(LABELS, UNIFORM, limits, 1e3)
    assert ">8 GB<" in chart and ">6 GB<" not in chart and ">24 GB<" not in chart


def test_a_picture_is_a_whole_file_that_loads_nothing_and_follows_light_and_dark() -> None:
    data = frontier.picture(LABELS, [*UNIFORM, CHOSEN], [], 1e3)
    assert data == frontier.picture(LABELS, [*UNIFORM, CHOSEN], [], 1e3)
    root = ElementTree.fromstring(data)
    assert root.tag == "{http://www.w3.org/2000/svg}svg" and root.get("role") == "img"
    assert root.findtext("{*}desc") == LABELS.description
    assert b"prefers-color-scheme:dark" in data
    assert not re.search(rb"href|@import|url\(|<script|<image", data)


@pytest.mark.parametrize("kl", [0.0, 1e-9])
def test_equal_models_and_models_without_loss_are_drawn(kl: float) -> None:
    chart = frontier.chart(LABELS, [Model(name, 1_000, kl) for name in "abc"], [], 1e3)
    assert "nan" not in chart and "inf" not in chart and chart.count("<circle") == 4
    assert (", KL 0" in chart) is (kl == 0)
