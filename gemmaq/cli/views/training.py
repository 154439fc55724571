"""Training progress: loss, rate and time left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from gemmaq.cli import console
from gemmaq.progress import Progress

if TYPE_CHECKING:
    from gemmaq.qat.train import Told

_UNKNOWN = 1 << 30
"""Number of steps reported while the clock has not decided on it."""


def _progress(metrics: Told) -> Progress:
    """Progress with the loss, the rate and, once the number of steps is known, the time left as its note."""
    known = metrics.steps < _UNKNOWN
    left = f"  {console.duration(metrics.left)} left" if known else ""
    note = f"loss {metrics.loss:.4f}  {metrics.rate:,.0f} tokens/s{left}"
    return Progress("training", metrics.step, metrics.steps if known else None, note=note)


@contextmanager
def training(quiet: bool) -> Iterator[Callable[[Told], None]]:
    """Show every step as a bar on a terminal, or a line every quarter of a minute elsewhere."""
    with console.progress(None, quiet) as progress:
        yield lambda metrics: progress(_progress(metrics))
