"""Line plots as SVG or PNG files.

Colours are Okabe and Ito's, which colour-blind eyes can tell apart; line styles differ as well, and every line is named
at its end.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gemmaq.charts import Labels
from gemmaq.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SUFFIXES = (".svg", ".png")

_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DASHES: tuple[str | tuple[int, tuple[int, ...]], ...] = ("-", (0, (5, 2)), (0, (1, 1)), (0, (5, 1, 1, 1)))
_INK, _GRID, _MARK = "#222222", "#DDDDDD", "#555555"


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a plot.

    Attributes:
        name: Name written at the end of the line.
        points: Its points (x, y), x ascending.
        faint: Draw it thin and without a name, in the colour of the line before it.
    """

    name: str
    points: tuple[tuple[float, float], ...]
    faint: bool = False


def check(path: Path) -> None:
    """Check that a plot can be drawn into a file, before any work.

    Raises:
        UsageError: The ending is not one that can be drawn, or matplotlib is missing.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"cannot draw {path.name}", f"end its name in {' or '.join(SUFFIXES)}")
    if not can_draw():
        raise UsageError("drawing needs matplotlib, which is not installed", "pip install matplotlib")


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    from importlib.util import find_spec

    return find_spec("matplotlib") is not None


def draw(
    suffix: str,
    labels: Labels,
    lines: Sequence[Line],
    *,
    levels: Sequence[tuple[str, float]] = (),
    powers_of_two: bool = False,
    top: float | None = None,
) -> bytes:
    """Draw lines into an image file.

    Args:
        suffix: `.svg` or `.png`.
        labels: Titles of the plot and its axes.
        lines: Lines, at most 28 that are not faint, which can be told apart.
        levels: Name and height of horizontal levels.
        powers_of_two: Whether the x axis is logarithmic and marked at powers of two.
        top: Largest y to show, None for the largest of the lines.

    Returns:
        Bytes of the file, the same for the same input.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    settings: Any = {"svg.hashsalt": "gemmaq", "font.family": "DejaVu Sans", "font.size": 11, "text.color": _INK}
    with rc_context(settings):
        figure = Figure(figsize=(10, 6), dpi=120, layout="constrained", facecolor="white")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        ends = _plot(axes, lines)
        start, end = min(line.points[0][0] for line in lines), max(line.points[-1][0] for line in lines)
        highest = top if top is not None else max(point[1] for line in lines for point in line.points)
        shown = [level for level in levels if level[1] <= 1.6 * highest] or list(levels)[:1]
        axes.set_ylim(0, 1.06 * max([highest, *(height for _, height in shown)]) or 1.0)
        for _, height in shown:
            axes.axhline(height, color=_MARK, linewidth=1, linestyle=(0, (2, 2)), zorder=0)
        _scale(axes, start, end, powers_of_two=powers_of_two)
        axes.set_title(labels.title, loc="left", fontweight="bold", pad=14)
        axes.set_xlabel(labels.x)
        axes.set_ylabel(labels.y)
        axes.grid(axis="y", color=_GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        _name(axes, end, ends)
        for name, height in shown:
            axes.annotate(name, (start, height), (6, 3), textcoords="offset points", color=_MARK, fontsize=9.5)
        buffer = io.BytesIO()
        metadata = {"Date": None} if suffix == ".svg" else {"Software": None}
        figure.savefig(buffer, format=suffix[1:], metadata=metadata)
    return buffer.getvalue()


def _plot(axes: Axes, lines: Sequence[Line]) -> list[tuple[str, float, str]]:
    """Draw the lines; name, height of its end and colour of each that has a name."""
    ends: list[tuple[str, float, str]] = []
    for line in lines:
        x, y = zip(*line.points, strict=True)
        number = max(0, len(ends) - 1) if line.faint else len(ends)
        color = _COLORS[number % len(_COLORS)]
        if line.faint:
            axes.plot(x, y, color=color, linewidth=0.8, alpha=0.45, zorder=1)
            continue
        style = _DASHES[number // len(_COLORS) % len(_DASHES)]
        axes.plot(x, y, color=color, linestyle=style, linewidth=2.2)
        ends.append((line.name, line.points[-1][1], color))
    return ends


def _scale(axes: Axes, start: float, end: float, *, powers_of_two: bool) -> None:
    """Set the range of the x axis, and its marks where it is logarithmic."""
    from matplotlib.ticker import FuncFormatter, NullLocator

    if powers_of_two:
        axes.set_xscale("log", base=2)
        axes.set_xticks([2**n for n in range(1, 40) if start <= 2**n <= end])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x / 1024:g}K" if x >= 1024 else f"{x:g}"))
    axes.set_xlim(start, end if end > start else start + 1)


def _name(axes: Axes, x: float, ends: list[tuple[str, float, str]]) -> None:
    """Write the names of lines next to their ends, pushed apart where they would overlap."""
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
