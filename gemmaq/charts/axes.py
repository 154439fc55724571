"""Axes, names and frames of charts in SVG."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from gemmaq.charts import Labels

WIDTH = 880
COLORS = 6
LETTER = 9.0
"""Width of a letter of a label in a wide font."""
LINE = 17
_LONGEST = 26


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis, which maps values to positions in the drawing."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """Position of a value."""
        low, high, value = (self._even(v) for v in (self.low, self.high, max(value, self.low)))
        return self.start + (self.end - self.start) * (value - low) / (high - low)

    def _even(self, value: float) -> float:
        return math.log10(value) if self.log else value

    @property
    def ticks(self) -> list[float]:
        """Values that are marked."""
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


def divergences(values: Sequence[float], start: float, end: float, factor: float) -> Axis:
    """Logarithmic where the values differ by more than a factor, else from 0."""
    positive = [value for value in values if value > 0]
    if not positive:
        return Axis(0, 1, start, end)
    least, most = min(positive), max(positive)
    if most / least > factor:
        return Axis(least / 1.7, most * 1.7, start, end, log=True)
    return Axis(0, most * 1.15, start, end)


Box = tuple[float, float, float, float]


def named(
    places: Sequence[tuple[float, float]],
    names: Sequence[str],
    frame: Box,
    *,
    kinds: Sequence[str] | None = None,
    covered: Sequence[Box] = (),
) -> Iterator[str]:
    """Names next to points, each where it covers nothing.

    Args:
        places: Where the points are.
        names: Their names.
        frame: What names stay within.
        kinds: Class of the colour of each name, None for a colour after another.
        covered: What else no name may cover.
    """
    taken: list[Box] = [*covered, *((x - 8, y - 8, x + 8, y + 8) for x, y in places)]
    kinds = kinds or [f"c{number % COLORS}" for number in range(len(names))]
    for (x, y), name, kind in zip(places, names, kinds, strict=True):
        wide = LETTER * len(name)
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
        yield f'<text class="n {kind}" x="{spot[0]:.1f}" y="{spot[1] + 4.5:.1f}">{escape(name)}</text>'


def _inside(box: Box, frame: Box) -> bool:
    return box[0] >= frame[0] and box[1] >= frame[1] and box[2] <= frame[2] and box[3] <= frame[3]


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def frame_of(x: Axis, y: Axis, labels: Labels, height: float) -> Iterator[str]:
    """Marks, lines and titles of both axes, in a drawing of that height."""
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


def short(label: str) -> str:
    """A name, without its middle where it is long."""
    return label if len(label) <= _LONGEST else f"{label[: _LONGEST // 2 - 1]}…{label[-_LONGEST // 2 :]}"


def whole(labels: Labels, height: float, parts: Sequence[str]) -> str:
    """The drawing, with its title and description."""
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img"><title>{escape(labels.title)}</title>'
        f"<desc>{escape(labels.description)}</desc>{''.join(parts)}</svg>"
    )
