"""Charts as inline SVG in the colours of the page, legible in light and dark.

Lines and points have Okabe and Ito's hues, which colour-blind eyes can tell apart; dashes differ as well, and every
line and point has its name next to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

from gemmaq.charts import Labels

WIDTH = 880
COLORS = 6
_DASHES = ("", "7 4", "2 3", "9 3 2 3")
_LETTER = 9.0
"""Width of a letter of a label in a wide font."""
_LINE = 17
_LONGEST = 26


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


@dataclass(frozen=True, slots=True)
class _Axis:
    """An axis, which maps values to positions in the drawing."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        low, high, value = (self._even(v) for v in (self.low, self.high, max(value, self.low)))
        return self.start + (self.end - self.start) * (value - low) / (high - low)

    def _even(self, value: float) -> float:
        return math.log10(value) if self.log else value

    @property
    def ticks(self) -> list[float]:
        if not self.log:
            return _steps(self.low, self.high)
        span = math.log10(self.high / self.low)
        digits = (1, 2, 5) if span < 1.6 else (1, 3) if span < 3 else (1,)
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        return [v for v in (digit * 10.0**power for power in powers for digit in digits) if self.low <= v <= self.high]


def _steps(low: float, high: float) -> list[float]:
    """About six round numbers."""
    rough = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * digit for digit in (1, 2, 2.5, 5, 10) if power * digit >= rough)
    first = math.ceil(low / step - 1e-9)
    return [round(step * n, 12) for n in range(first, math.floor(high / step + 1e-9) + 1)]


def _divergences(values: Sequence[float], start: float, end: float, factor: float) -> _Axis:
    """Logarithmic where the values differ by more than a factor, else from 0."""
    positive = [value for value in values if value > 0]
    if not positive:
        return _Axis(0, 1, start, end)
    least, most = min(positive), max(positive)
    if most / least > factor:
        return _Axis(least / 1.7, most * 1.7, start, end, log=True)
    return _Axis(0, most * 1.15, start, end)


def scatter(labels: Labels, points: Sequence[Point], unit: float) -> str:
    """Draw points with their names; x is divided by `unit`."""
    height, left, right, top, bottom = 400, 70, WIDTH - 16, 14, 344
    xs = [point.x / unit for point in points]
    pad = max(0.15 * (max(xs) - min(xs)), 0.06 * max(xs))
    x = _Axis(max(0.0, min(xs) - pad), max(xs) + pad, left, right)
    y = _divergences([point.y for point in points], bottom, top, 6)
    parts = [*_frame(x, y, labels, height)]
    places = [(x.at(point.x / unit), y.at(point.y)) for point in points]
    for number, (at, down) in enumerate(places):
        parts.append(f'<circle class="p c{number % COLORS}" cx="{at:.1f}" cy="{down:.1f}" r="6"/>')
    names = [f"{_short(point.label)}{', KL 0' if y.log and point.y <= 0 else ''}" for point in points]
    parts += _named(places, names, (left, top, right, bottom))
    return _svg(labels, height, parts)


_Box = tuple[float, float, float, float]


def _named(places: Sequence[tuple[float, float]], names: Sequence[str], frame: _Box) -> Iterator[str]:
    """Names next to points, each where it covers nothing."""
    taken: list[_Box] = [(x - 8, y - 8, x + 8, y + 8) for x, y in places]
    for number, ((x, y), name) in enumerate(zip(places, names, strict=True)):
        wide = _LETTER * len(name)
        offers = [(x + 12, y), (x - 12 - wide, y), (x - wide / 2, y - 18), (x - wide / 2, y + 18)]
        offers += [
            (x + side, y + way * far) for far in range(18, 300, 9) for way in (-1, 1) for side in (18, -18 - wide)
        ]
        spot = offers[0]
        for spot in offers:
            box = (spot[0], spot[1] - 8, spot[0] + wide, spot[1] + 8)
            if _inside(box, frame) and not any(_overlap(box, other) for other in taken):
                break
        box = (spot[0], spot[1] - 8, spot[0] + wide, spot[1] + 8)
        taken.append(box)
        if abs(spot[1] - y) > 20:
            near = box[0] - 3 if box[0] > x else box[2] + 3
            yield f'<line class="lead" x1="{x:.1f}" y1="{y:.1f}" x2="{near:.1f}" y2="{spot[1]:.1f}"/>'
        yield f'<text class="n c{number % COLORS}" x="{spot[0]:.1f}" y="{spot[1] + 4.5:.1f}">{escape(name)}</text>'


def _inside(box: _Box, frame: _Box) -> bool:
    return box[0] >= frame[0] and box[1] >= frame[1] and box[2] <= frame[2] and box[3] <= frame[3]


def _overlap(a: _Box, b: _Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def lines(labels: Labels, x: Sequence[float], drawn: Sequence[Line]) -> str:
    """Draw lines with their names at the end, and faintly below each the values it is the mean of."""
    height, left, top, bottom = 400, 70, 14, 344
    right = WIDTH - 24 - _LETTER * max(len(_short(line.label)) for line in drawn)
    across = _Axis(0, x[-1], left, right)
    ends = [line.y[-1] for line in drawn]
    y = _divergences(ends, bottom, top, 12)
    every = [value for line in drawn for value in line.each if value > 0] or [1.0]
    y = _Axis(max(y.low / 3, min(every) / 1.2) if y.log else 0, max(max(every) * 1.08, 1e-12), bottom, top, y.log)
    parts = [*_frame(across, y, labels, height)]
    for number, line in enumerate(drawn):
        kind, dash = f"c{number % COLORS}", _DASHES[number // COLORS % len(_DASHES)]
        parts.append(f'<polyline class="l faint {kind}" points="{_path(across, y, x, line.each)}"/>')
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        parts.append(f'<polyline class="l {kind}"{dashed} points="{_path(across, y, x, line.y)}"/>')
        parts.append(f'<circle class="p {kind}" cx="{across.at(x[-1]):.1f}" cy="{y.at(line.y[-1]):.1f}" r="3.5"/>')
    for number, place in _spread([y.at(end) for end in ends], top, bottom):
        name = escape(_short(drawn[number].label))
        parts.append(f'<text class="n c{number % COLORS}" x="{right + 12:.1f}" y="{place + 4.5:.1f}">{name}</text>')
    return _svg(labels, height, parts)


def _path(across: _Axis, y: _Axis, xs: Sequence[float], ys: Sequence[float]) -> str:
    return " ".join(f"{across.at(a):.1f},{y.at(b):.1f}" for a, b in zip(xs, ys, strict=True))


def _spread(places: Sequence[float], top: float, bottom: float) -> list[tuple[int, float]]:
    """Number and position of every name, in order of height, pushed apart where they would overlap."""
    order = sorted(range(len(places)), key=lambda number: places[number])
    down: list[float] = []
    for number in order:
        down.append(max(places[number], down[-1] + _LINE if down else top))
    up: list[float] = []
    for number in reversed(order):
        up.append(min(places[number], up[-1] - _LINE if up else bottom))
    middle = [(low + high) / 2 for low, high in zip(down, reversed(up), strict=True)]
    for at in range(1, len(middle)):
        middle[at] = max(middle[at], middle[at - 1] + _LINE)
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
    return _svg(labels, height + 22, parts)


def scale(most: float, say: Callable[[float], str]) -> str:
    """Draw the scale of the colours of `heat`."""
    parts = []
    for n in range(5):
        at, word = 56 + 96 * n, escape(say(most * (n / 4) ** 2))
        opacity = 0.05 + 0.95 * n / 4
        parts.append(f'<rect class="cell" x="{at}" y="2" width="16" height="14" fill-opacity="{opacity:.3f}"/>')
        parts.append(f'<text class="t" x="{at + 23}" y="13.5">{word}</text>')
    return _svg(Labels("Scale of the colours", description=f"from 0 to {say(most)}"), 18, parts)


def _frame(x: _Axis, y: _Axis, labels: Labels, height: float) -> Iterator[str]:
    for tick in y.ticks:
        at = y.at(tick)
        yield f'<line class="grid" x1="{x.start}" x2="{x.end:.1f}" y1="{at:.1f}" y2="{at:.1f}"/>'
        yield f'<text class="t" x="{x.start - 8}" y="{at + 4:.1f}" text-anchor="end">{tick:g}</text>'
    yield f'<line class="axis" x1="{x.start}" x2="{x.end:.1f}" y1="{y.start}" y2="{y.start}"/>'
    for tick in x.ticks:
        at = x.at(tick)
        yield f'<line class="axis" x1="{at:.1f}" x2="{at:.1f}" y1="{y.start}" y2="{y.start + 5}"/>'
        yield f'<text class="t" x="{at:.1f}" y="{y.start + 20}" text-anchor="middle">{tick:,g}</text>'
    middle = (x.start + x.end) / 2
    yield f'<text class="a" x="{middle:.1f}" y="{height - 10}" text-anchor="middle">{escape(labels.x)}</text>'
    middle = (y.start + y.end) / 2
    yield (
        f'<text class="a" transform="translate(16 {middle:.1f}) rotate(-90)" text-anchor="middle">'
        f"{escape(labels.y)}</text>"
    )


def _short(label: str) -> str:
    return label if len(label) <= _LONGEST else f"{label[: _LONGEST // 2 - 1]}…{label[-_LONGEST // 2 :]}"


def _svg(labels: Labels, height: float, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img"><title>{escape(labels.title)}</title>'
        f"<desc>{escape(labels.description)}</desc>{''.join(parts)}</svg>"
    )
