"""How long work reports how far it is: one value, and a callback that takes it.

The core calls the callback and never prints; `cli/console.py` turns the values into bars or lines.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Unit = Literal["bytes", "layers", "rows", "steps"]


@dataclass(frozen=True, slots=True)
class Progress:
    """A report from work under way.

    Attributes:
        task: Present participle that names the work, such as "calibrating".
        done: Units finished so far; of `item` if there is one.
        total: Units in all, or None while that is not known.
        unit: What `done` and `total` count.
        item: File under way, where a task works on several at once.
        note: Figures worth showing after the bar, such as a loss.
    """

    task: str
    done: int
    total: int | None = None
    unit: Unit = "steps"
    item: str | None = None
    note: str = ""


ProgressCallback = Callable[[Progress], None]
"""Takes every report. May be called from any thread, and returns quickly."""


def ignore(progress: Progress) -> None:
    """A callback for work that nobody watches."""
