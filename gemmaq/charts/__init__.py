"""Charts: line plots as image files, and SVG for pages."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Labels:
    """Texts of a chart.

    Attributes:
        title: Title of the chart.
        x: Title of the horizontal axis, with its unit.
        y: Title of the vertical axis, with its unit.
        description: The content in words, for readers who do not see the chart.
    """

    title: str
    x: str = ""
    y: str = ""
    description: str = ""
