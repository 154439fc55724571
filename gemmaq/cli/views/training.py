"""What is to be seen of a training: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from gemmaq.cli import console

if TYPE_CHECKING:
    from gemmaq.qat.train import Told

_SECONDS = 15.0
_UNKNOWN = 1 << 30
"""So many steps are told while the clock has not decided on their number."""


def _line(told: Told) -> str:
    minutes, seconds = divmod(round(told.left), 60)
    left = f"  {minutes}:{seconds:02} left" if told.steps < _UNKNOWN else ""
    return f"loss {told.loss:.4f}  {told.rate:,.0f} tokens/s{left}"


def _of(told: Told) -> str:
    return f" of {told.steps}" if told.steps < _UNKNOWN else ""


@contextmanager
def training(quiet: bool) -> Iterator[Callable[[Told], None]]:
    """Loss, rate and time left after every step; on a terminal as a bar, else a line every quarter of a minute."""
    if quiet:
        yield lambda told: None
        return
    if not sys.stderr.isatty():
        last = [0.0]

        def tell(told: Told) -> None:
            now = time.monotonic()
            if now - last[0] >= _SECONDS or told.step == told.steps:
                last[0] = now
                console.say(f"step {told.step}{_of(told)}  {_line(told)}")

        yield tell
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("step"), MofNCompleteColumn(), BarColumn(), TextColumn("{task.fields[line]}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None, line="")
        yield lambda told: bar.update(
            task, completed=told.step, total=told.steps if told.steps < _UNKNOWN else None, line=_line(told)
        )
