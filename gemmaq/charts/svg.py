"""Charts as inline SVG in the colours of the page, legible in light and dark.

Lines and points have Okabe and Ito's hues, which colour-blind eyes can tell apart; dashes differ as well, and every
line and point has its name next to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from gemmaq.charts import Labels
from gemmaq.charts.axes import COLORS, LETTER, LINE, WIDTH, Axis, divergences, frame_of, named, short, whole

_DASHES = ("", "7 4", "2 3", "9 3 2 3")


@dataclass(frozen=True, slots=True)
class Point:
    """A labelled point."""

    label: str
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Line:
    """A named line.

    Attributes:
        label: Name of the line.
        y: Height at every x of the chart.
        each: Values that `y` is the running mean of.
    """

    label: str
    y: tuple[float, ...]
    each: tuple[float, ...]


def scatter(labels: Labels, points: Sequence[Point], unit: float) -> str:
    """Draw points with their names; x is divided by `unit`."""
    height, left, right, top, bottom = 400, 70, WIDTH - 16, 14, 344
    xs = [point.x / unit for point in points]
    pad = max(0.15 * (max(xs) - min(xs)), 0.06 * max(xs))
    x = Axis(max(0.0, min(xs) - pad), max(xs) + pad, left, right)
    y = divergences([point.y for point in points], bottom, top, 6)
    parts = [*frame_of(x, y, labels, height)]
    places = [(x.at(point.x / unit), y.at(point.y)) for point in points]
    for number, (at, down) in enumerate(places):
        parts.append(f'<circle class="p c{number % COLORS}" cx="{at:.1f}" cy="{down:.1f}" r="6"/>')
    names = [f"{short(point.label)}{', KL 0' if y.log and point.y <= 0 else ''}" for point in points]
    parts += named(places, names, (left, top, right, bottom))
    return whole(labels, height, parts)


def lines(labels: Labels, x: Sequence[float], drawn: Sequence[Line]) -> str:
    """Draw lines with their names at the end, and faintly below each the values it is the mean of."""
    height, left, top, bottom = 400, 70, 14, 344
    right = WIDTH - 24 - LETTER * max(len(short(line.label)) for line in drawn)
    across = Axis(0, x[-1], left, right)
    ends = [line.y[-1] for line in drawn]
    y = divergences(ends, bottom, top, 12)
    every = [value for line in drawn for value in line.each if value > 0] or [1.0]
    y = Axis(max(y.low / 3, min(every) / 1.2) if y.log else 0, max(max(every) * 1.08, 1e-12), bottom, top, y.log)
    parts = [*frame_of(across, y, labels, height)]
    for number, line in enumerate(drawn):
        kind, dash = f"c{number % COLORS}", _DASHES[number // COLORS % len(_DASHES)]
        parts.append(f'<polyline class="l faint {kind}" points="{_path(across, y, x, line.each)}"/>')
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        parts.append(f'<polyline class="l {kind}"{dashed} points="{_path(across, y, x, line.y)}"/>')
        parts.append(f'<circle class="p {kind}" cx="{across.at(x[-1]):.1f}" cy="{y.at(line.y[-1]):.1f}" r="3.5"/>')
    for number, place in _spread([y.at(end) for end in ends], top, bottom):
        name = escape(short(drawn[number].label))
        parts.append(f'<text class="n c{number % COLORS}" x="{right + 12:.1f}" y="{place + 4.5:.1f}">{name}</text>')
    return whole(labels, height, parts)


def _path(across: Axis, y: Axis, xs: Sequence[float], ys: Sequence[float]) -> str:
    return " ".join(f"{across.at(a):.1f},{y.at(b):.1f}" for a, b in zip(xs, ys, strict=True))


def _spread(places: Sequence[float], top: float, bottom: float) -> list[tuple[int, float]]:
    """Number and position of every name, in order of height, pushed apart where they would overlap."""
    order = sorted(range(len(places)), key=lambda number: places[number])
    down: list[float] = []
    for number in order:
        down.append(max(places[number], down[-1] + LINE if down else top))
    up: list[float] = []
    for number in reversed(order):
        up.append(min(places[number], up[-1] - LINE if up else bottom))
    middle = [(low + high) / 2 for low, high in zip(down, reversed(up), strict=True)]
    for at in range(1, len(middle)):
        middle[at] = max(middle[at], middle[at - 1] + LINE)
    return list(zip(order, middle, strict=True))


def heat(
    labels: Labels,
    rows: Sequence[tuple[str, Sequence[float | None], str]],
    *,
    most: float,
    say: Callable[[float], str],
) -> str:
    """Draw a row of cells for every kind of tensor, a column for every layer, and a summary at the end of each row.

    Args:
        labels: Title and description.
        rows: Name, values by layer, and summary.
        most: Value of the strongest colour; strength goes with the square root, so that small values show.
        say: Writes a value.
    """
    left, right, tall = 56, 74, 20
    columns = max(len(values) for _, values, _ in rows)
    wide = (WIDTH - left - right) / columns
    gap = 1.5 if wide > 6 else 0.5
    parts = []
    for down, (name, values, word) in enumerate(rows):
        y = down * tall
        parts.append(f'<text class="t" x="{left - 10}" y="{y + 14}" text-anchor="end">{escape(name)}</text>')
        parts.append(f'<text class="t" x="{WIDTH - right + 10}" y="{y + 14}">{escape(word)}</text>')
        for at, value in enumerate(values):
            if value is None:
                continue
            strength = 0.0 if not most else math.sqrt(min(1.0, value / most))
            parts.append(
                f'<rect class="cell" x="{left + at * wide:.1f}" y="{y}" width="{wide - gap:.1f}" '
                f'height="{tall - gap}" fill-opacity="{0.05 + 0.95 * strength:.3f}">'
                f"<title>layer {at}, {escape(name)}: {escape(say(value))}</title></rect>"
            )
    height = len(rows) * tall
    every = next(step for step in (1, 2, 5, 10, 20, 50, 100, 500, 1000) if step * wide >= 24 or step == 1000)
    for at in range(0, columns, every):
        middle = left + (at + 0.5) * wide - gap / 2
        parts.append(f'<text class="t" x="{middle:.1f}" y="{height + 16}" text-anchor="middle">{at}</text>')
    parts.append(f'<text class="t" x="{left - 10}" y="{height + 16}" text-anchor="end">layer</text>')
    return whole(labels, height + 22, parts)


def scale(most: float, say: Callable[[float], str]) -> str:
    """Draw the scale of the colours of `heat`."""
    parts = []
    for n in range(5):
        at, word = 56 + 96 * n, escape(say(most * (n / 4) ** 2))
        opacity = 0.05 + 0.95 * n / 4
        parts.append(f'<rect class="cell" x="{at}" y="2" width="16" height="14" fill-opacity="{opacity:.3f}"/>')
        parts.append(f'<text class="t" x="{at + 23}" y="13.5">{word}</text>')
    return whole(Labels("Scale of the colours", description=f"from 0 to {say(most)}"), 18, parts)
