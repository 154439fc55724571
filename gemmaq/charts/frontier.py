"""What quality costs in bytes: models as points, the best that single types give as a line, and what cards hold.

Single types are circles on a solid line, chosen mixtures diamonds; shapes and hues differ, and every point has its
name. Divergences are logarithmic, as they go down by a factor with every bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from gemmaq.charts import Labels
from gemmaq.charts.axes import WIDTH, Axis, Box, frame_of, named, short, whole

LEAST = 3
"""Models that make a frontier: fewer are a pair of numbers."""

_HEIGHT = 440
_KINDS = ("c0", "c1")
"""Classes of the colours of single types and of chosen ones."""

_STYLE = """
:root{--card:#fff;--ink:#1f2328;--soft:#57606a;--line:#e3e3de;--c0:#0072b2;--c1:#c24e00}
@media (prefers-color-scheme:dark){
:root{--card:#1b1e22;--ink:#e6e8ea;--soft:#a0a8b0;--line:#30353b;--c0:#5cb3ec;--c1:#ff9455}}
svg{font:13px system-ui,-apple-system,"Segoe UI",Roboto,Arial,sans-serif}
.page{fill:var(--card)}.h{fill:var(--ink);font-size:16px;font-weight:600}
.t{fill:var(--soft);font-size:12px}.a{fill:var(--soft);font-size:13px}
.n{font-weight:600;paint-order:stroke;stroke:var(--card);stroke-width:4px;stroke-linejoin:round}
.grid{stroke:var(--line)}.axis,.lead{stroke:var(--soft)}.lead{stroke-width:.8;opacity:.6}
.l{fill:none;stroke-width:2.4;stroke-linejoin:round;stroke-linecap:round}
.n.c0,.p.c0{fill:var(--c0)}.n.c1,.p.c1{fill:var(--c1)}.l.c0{stroke:var(--c0)}
"""
"""Colours of a picture that stands alone, by what the reader's system prefers."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model of the chart.

    Attributes:
        label: Its name.
        size: Bytes of its files.
        kl: Mean KL divergence, nats.
        chosen: Whether its types were chosen tensor by tensor, rather than one type for all.
    """

    label: str
    size: int
    kl: float
    chosen: bool = False


@dataclass(frozen=True, slots=True)
class Limit:
    """The largest files that a card holds: its name, and bytes."""

    name: str
    size: int


def hull(models: Sequence[Model]) -> list[Model]:
    """The single types on the lower hull, the smallest first: none of them, nor a blend of two, is better at its size.

    Between two of them the hull goes straight in the logarithm of the divergence, as it is drawn. It ends at the best.
    """
    best: list[Model] = []
    for model in sorted((m for m in models if not m.chosen and m.kl > 0), key=lambda m: (m.size, m.kl)):
        if best and model.kl >= best[-1].kl:
            continue
        while len(best) > 1 and _slope(best[-2], best[-1]) >= _slope(best[-2], model):
            best.pop()
        best.append(model)
    return best


def _slope(a: Model, b: Model) -> float:
    return (math.log(b.kl) - math.log(a.kl)) / (b.size - a.size)


def within(models: Sequence[Model], limits: Sequence[Limit]) -> list[Limit]:
    """The limits that fall in the range of sizes that is drawn."""
    low, high = _range([model.size for model in models])
    return [limit for limit in limits if low < limit.size < high]


def about(models: Sequence[Model], limits: Sequence[Limit]) -> str:
    """Sentences about the lines of the chart, with a space after each; nothing about lines that it lacks."""
    said = ""
    if len(hull(models)) > 1:
        said += "The line goes through the best that one type for the whole model gives; a model below it is better. "
    if within(models, limits):
        said += "Dotted: the largest files that cards hold with 8K tokens of context. "
    return said


def chart(labels: Labels, models: Sequence[Model], limits: Sequence[Limit], unit: float) -> str:
    """Draw the frontier for a page that has the styles; bytes are divided by `unit`.

    Args:
        labels: Titles and description.
        models: At least one model.
        limits: What cards hold; drawn where it falls in the range.
        unit: Bytes that are 1 on the horizontal axis.
    """
    return whole(labels, _HEIGHT, _parts(labels, models, limits, unit))


def picture(labels: Labels, models: Sequence[Model], limits: Sequence[Limit], unit: float) -> bytes:
    """Draw the frontier as an SVG file that stands alone, light or dark as the reader's system; arguments as above.

    Returns:
        Bytes of the file, the same for the same input.
    """
    inner = "".join(_parts(labels, models, limits, unit))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-8 -40 {WIDTH + 16} {_HEIGHT + 48}" width="{WIDTH + 16}" '
        f'height="{_HEIGHT + 48}" role="img"><title>{escape(labels.title)}</title>'
        f"<desc>{escape(labels.description)}</desc><style>{_STYLE}</style>"
        f'<rect class="page" x="-8" y="-40" width="{WIDTH + 16}" height="{_HEIGHT + 48}" rx="8"/>'
        f'<text class="h" x="12" y="-14">{escape(labels.title)}</text>{inner}</svg>\n'
    ).encode()


def _range(sizes: Sequence[int]) -> tuple[float, float]:
    """Sizes at the ends of the horizontal axis."""
    pad = max(0.12 * (max(sizes) - min(sizes)), 0.04 * max(sizes))
    return max(0.0, min(sizes) - pad), max(sizes) + pad


def _parts(labels: Labels, models: Sequence[Model], limits: Sequence[Limit], unit: float) -> list[str]:
    left, right, top, bottom = 70, WIDTH - 16, 34, 384
    low, high = _range([model.size for model in models])
    x = Axis(low / unit, high / unit, left, right)
    positive = [model.kl for model in models if model.kl > 0] or [1.0]
    y = Axis(min(positive) / 1.7, max(positive) * 1.7, bottom, top, log=True)
    parts = [*frame_of(x, y, labels, _HEIGHT)]
    covered: list[Box] = []
    for limit in within(models, limits):
        at = x.at(limit.size / unit)
        side, anchor = (-5, "end") if at > WIDTH / 2 else (5, "start")
        wide = 7 * len(limit.name)
        covered += [(at - 1, top, at + 1, bottom)]
        covered += [(at + side - (wide if side < 0 else 0), top, at + side + (0 if side < 0 else wide), top + 16)]
        parts.append(
            f'<line class="axis" stroke-dasharray="2 4" x1="{at:.1f}" x2="{at:.1f}" y1="{top}" y2="{bottom}"/>'
            f'<text class="t" x="{at + side:.1f}" y="{top + 12}" text-anchor="{anchor}">{escape(limit.name)}</text>'
        )
    bends = [(x.at(model.size / unit), y.at(model.kl)) for model in hull(models)]
    if len(bends) > 1:
        path = " ".join(f"{across:.1f},{down:.1f}" for across, down in bends)
        parts.append(f'<polyline class="l c0" points="{path}"/>')
    for a, b in pairwise(bends):
        covered += _along(a, b)
    places = [(x.at(model.size / unit), y.at(model.kl)) for model in models]
    for model, (across, down) in zip(models, places, strict=True):
        parts.append(_mark(across, down, chosen=model.chosen))
    names = [f"{short(model.label)}{', KL 0' if model.kl <= 0 else ''}" for model in models]
    kinds = [_KINDS[model.chosen] for model in models]
    parts += named(places, names, (left, top, right, bottom), kinds=kinds, covered=covered)
    return parts + _legend(models, left)


def _along(a: tuple[float, float], b: tuple[float, float]) -> list[Box]:
    """Boxes that cover a piece of the line."""
    count = max(1, math.ceil(math.dist(a, b) / 8))
    steps = [(a[0] + (b[0] - a[0]) * n / count, a[1] + (b[1] - a[1]) * n / count) for n in range(count + 1)]
    return [(across - 2, down - 2, across + 2, down + 2) for across, down in steps]


def _mark(x: float, y: float, *, chosen: bool) -> str:
    if chosen:
        return f'<path class="p c1" d="M{x:.1f} {y - 8:.1f}l8 8l-8 8l-8 -8z"/>'
    return f'<circle class="p c0" cx="{x:.1f}" cy="{y:.1f}" r="6"/>'


def _legend(models: Sequence[Model], left: float) -> list[str]:
    """What the marks mean, above the chart."""
    kinds = [(False, "one type, or a mixture with a name"), (True, "types chosen tensor by tensor")]
    parts, at = [], left + 8.0
    for chosen, text in kinds:
        if any(model.chosen is chosen for model in models):
            parts.append(_mark(at, 12, chosen=chosen) + f'<text class="a" x="{at + 14:.1f}" y="16.5">{text}</text>')
            at += 44 + 7.5 * len(text)
    return parts
