"""Line charts for people, as SVG or PNG.

Colours are Okabe and Ito's, told apart by colour-blind eyes; line styles differ as well, and every line is named where
it ends.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gemmaq.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SUFFIXES = (".svg", ".png")

_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DASHES: tuple[str | tuple[int, tuple[int, ...]], ...] = ("-", (0, (5, 2)), (0, (1, 1)), (0, (5, 1, 1, 1)))
_INK, _GRID, _MARK = "#222222", "#DDDDDD", "#555555"


@dataclass(frozen=True, slots=True)
class Line:
    """A line by its name and its points, x ascending."""

    name: str
    points: tuple[tuple[float, float], ...]


def check(path: Path) -> None:
    """Fail before any work.

    Raises:
        UsageError: the ending is not one that can be drawn, or matplotlib is missing.
    """
    from importlib.util import find_spec

    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"cannot draw {path.name}", f"end its name in {' or '.join(SUFFIXES)}")
    if find_spec("matplotlib") is None:
        raise UsageError("drawing needs matplotlib, which is not installed", "pip install 'gemmaq[plot]'")


def draw(
    suffix: str,
    title: str,
    x_title: str,
    y_title: str,
    lines: Sequence[Line],
    levels: Sequence[tuple[str, float]] = (),
) -> bytes:
    """A chart of lines over a logarithmic x axis of powers of two, with named horizontal levels.

    Args:
        suffix: `.svg` or `.png`.
        title: above it.
        x_title: with its unit.
        y_title: with its unit.
        lines: at most as many as can be told apart, 28.
        levels: name and height.

    Returns:
        the file's bytes, the same for the same input.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullLocator

    settings: Any = {"svg.hashsalt": "gemmaq", "font.family": "DejaVu Sans", "font.size": 11, "text.color": _INK}
    with rc_context(settings):
        figure = Figure(figsize=(10, 6), dpi=120, layout="constrained", facecolor="white")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        for number, line in enumerate(lines):
            x, y = zip(*line.points, strict=True)
            style = _DASHES[number // len(_COLORS) % len(_DASHES)]
            axes.plot(x, y, color=_COLORS[number % len(_COLORS)], linestyle=style, linewidth=2.2)
        start, end = lines[0].points[0][0], max(line.points[-1][0] for line in lines)
        top = max(point[1] for line in lines for point in line.points)
        shown = [level for level in levels if level[1] <= 1.6 * top] or list(levels)[:1]
        axes.set_ylim(0, 1.06 * max([top, *(height for _, height in shown)]))
        for _, height in shown:
            axes.axhline(height, color=_MARK, linewidth=1, linestyle=(0, (2, 2)), zorder=0)
        axes.set_xscale("log", base=2)
        axes.set_xlim(start, end)
        axes.set_xticks([2**n for n in range(1, 40) if start <= 2**n <= end])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x / 1024:g}K" if x >= 1024 else f"{x:g}"))
        axes.set_title(title, loc="left", fontweight="bold", pad=14)
        axes.set_xlabel(x_title)
        axes.set_ylabel(y_title)
        axes.grid(axis="y", color=_GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        _name(axes, end, [(line.name, line.points[-1][1], _COLORS[n % len(_COLORS)]) for n, line in enumerate(lines)])
        for name, height in shown:
            axes.annotate(name, (start, height), (6, 3), textcoords="offset points", color=_MARK, fontsize=9.5)
        buffer = io.BytesIO()
        metadata = {"Date": None} if suffix == ".svg" else {"Software": None}
        figure.savefig(buffer, format=suffix[1:], metadata=metadata)
    return buffer.getvalue()


def _name(axes: Axes, x: float, ends: list[tuple[str, float, str]]) -> None:
    """Write the names of lines beside their ends, pushed apart where they would overlap."""
    low, high = axes.get_ylim()
    least = (high - low) * 0.042
    at = low
    for name, height, color in sorted(ends, key=lambda end: end[1]):
        at = max(height, at + least if at > low else height)
        axes.annotate(
            name,
            (x, at),
            (8, 0),
            textcoords="offset points",
            va="center",
            color=color,
            fontweight="bold",
            annotation_clip=False,
        )
