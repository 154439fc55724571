"""Work under way: bars on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from gemmaq.cli import terminal
from gemmaq.cli.terminal import duration, on_one_line, say, size
from gemmaq.progress import Progress, ProgressCallback, ignore

_NOTE_SECONDS = 15.0
"""Between two lines about a task with a note."""
_LEAST_BAR = 8


@contextmanager
def progress(title: str | None, quiet: bool, total: int | None = None) -> Iterator[ProgressCallback]:
    """Show work under way: bars on a terminal, lines elsewhere, nothing if quiet.

    Args:
        title: Names the work as a whole; without it every task shows under its own name.
        quiet: Show nothing.
        total: Sum over all items of the task, where it works on several at once.
    """
    if quiet:
        yield ignore
    elif not terminal.draws():
        if title is not None:
            say(title)
        yield _lines(titled=title is not None)
    else:
        with terminal.waiting.paused(), _bars(title, total) as report:
            yield report


def _lines(titled: bool) -> ProgressCallback:
    """A line for every item finished, every new task without a title, and now and then for a task with a note."""
    announced: set[str] = set()
    lock, last = threading.Lock(), -_NOTE_SECONDS

    def report(progress: Progress) -> None:
        nonlocal last
        finished = progress.done == progress.total
        with lock:
            if progress.note:
                now = time.monotonic()
                if finished or now - last >= _NOTE_SECONDS:
                    last = now
                    say(f"{progress.task}: {_amount(progress)}  {progress.note}")
            elif progress.item is not None:
                if finished:
                    say(f"  {progress.item}  {_amount(progress)}")
            elif not titled and progress.task not in announced:
                announced.add(progress.task)
                say(progress.task)

    return report


@contextmanager
def _bars(title: str | None, total: int | None) -> Iterator[ProgressCallback]:
    """A bar for the title or for each task, and one below it for each item under way.

    While none of them moves, as before the first report, another one says so and for how long. A title that leaves too
    little room for its bar stands above it.
    """
    from rich.progress import BarColumn, ProgressColumn, Task, TaskID
    from rich.progress import Progress as Bars
    from rich.table import Column
    from rich.text import Text

    columns = terminal.width(sys.stderr) or 80
    most = columns // 3
    if title is not None and len(title) > most:
        say(title)
        title = "in all"

    class Figures(ProgressColumn):
        """What a bar cannot show: amounts, and the rate with the time left or a note."""

        def render(self, task: Task) -> Text:
            latest: Progress | None = task.fields["latest"]
            if latest is None:
                return Text("" if task.elapsed is None else duration(task.elapsed))
            return Text(
                _figures(latest, task.speed, task.time_remaining, columns - most - _LEAST_BAR - 2, task.elapsed)
            )

    class Name(ProgressColumn):
        """What is done, or what is done in the midst of waiting for it."""

        def render(self, task: Task) -> Text:
            between = terminal.waiting.told_between if task.fields.get("waits") else None
            return Text(between or task.description)

    lock = threading.Lock()
    shown = (
        Name(Column(no_wrap=True)),
        BarColumn(None, table_column=Column(ratio=1, min_width=_LEAST_BAR)),
        Figures(Column(no_wrap=True, justify="right")),
    )
    with Bars(*shown, console=terminal.rich_console(stderr=True), transient=True, expand=True) as bars:
        whole = None if title is None else bars.add_task(on_one_line(title), total=total, latest=None)
        tasks: dict[tuple[str, str | None], TaskID] = {}
        counts: dict[str, int] = {}
        idle = bars.add_task("getting ready", total=None, latest=None, waits=True)

        def report(progress: Progress) -> None:
            nonlocal idle
            key = (progress.task, progress.item)
            with lock:
                if whole is not None and progress.item is None:
                    tasks[key] = whole
                if key not in tasks:
                    name = _short(progress.task, most) if progress.item is None else f"  {progress.item[-most + 2 :]}"
                    tasks[key] = bars.add_task(on_one_line(name), total=progress.total, latest=progress)
                if progress.item is not None and whole is not None:
                    counts[progress.item] = progress.done
                    done = sum(counts.values())
                    bars.update(whole, completed=done, latest=replace(progress, done=done, total=total))
            is_through = progress.done == progress.total
            shown = progress.item is None or not is_through
            bars.update(tasks[key], completed=progress.done, total=progress.total, visible=shown, latest=progress)
            with lock:
                if is_through and all(task.finished for task in bars.tasks if task.id != idle):
                    bars.remove_task(idle)  # and begin again to count its seconds, below all others
                    idle = bars.add_task("next", total=None, latest=None, waits=True)
                elif not is_through:
                    bars.update(idle, visible=False)

        yield report


def _short(task: str, most: int) -> str:
    """A task in so many characters: as many of its first words as there is room for, at least one."""
    words = task.split(" ")
    while len(words) > 1 and len(" ".join(words)) > most:
        words.pop()
    return " ".join(words)[:most]


def _amount(progress: Progress) -> str:
    """`3 of 26 layers`, `1.20 GB of 4.00 GB`, or `4.00 GB` where all bytes are there."""
    counts = [progress.done] if progress.total is None else [progress.done, progress.total]
    if progress.unit == "bytes":
        return " of ".join(dict.fromkeys(map(size, counts)))
    return f"{' of '.join(f'{count:,}' for count in counts)} {progress.unit}"


def _figures(
    progress: Progress, speed: float | None, seconds: float | None, room: int, still: float | None = None
) -> str:
    """Amount, rate and time left of a bar, or its note in place of the last two; as much of it as there is room for.

    Where neither rate nor time left is known, `still`, the seconds since the bar began, says that it goes on.
    """
    amount = _amount(progress)
    left = f"{duration(seconds)} left" if seconds and progress.done != progress.total else ""
    rate = f"{size(speed)}/s" if speed and progress.unit == "bytes" else ""
    if not left and not rate and progress.done != progress.total and still is not None:
        left = duration(still)
    forms = [(amount, progress.note)] if progress.note else [(amount, rate, left), (amount, left)]
    texts = ["  ".join(filter(None, form)) for form in forms]
    return next((text for text in texts if len(text) <= room), texts[-1])
