"""The only place that prints. Results go to stdout, everything else to stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from gemmaq.errors import GemmaqError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def out(text: str) -> None:
    """A line of the result."""
    sys.stdout.write(text + "\n")


def emit_json(command: str, value: dict[str, Any]) -> None:
    """The one JSON object of a command."""
    out(json.dumps({"schema": f"gemmaq.{command}/1", **value}, ensure_ascii=False))


def say(text: str) -> None:
    """A line for the person watching."""
    sys.stderr.write(text + "\n")


def warn(text: str) -> None:
    """Something the user should know."""
    say(_styled("warning:", "33") + " " + text)


def error(problem: GemmaqError) -> None:
    """What is wrong, and what to do next."""
    say(_styled("error:", "31") + " " + problem.message)
    if problem.hint:
        say(_styled("  try:", "36") + " " + problem.hint)


def _styled(text: str, color: str) -> str:
    colored = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    return f"\033[1;{color}m{text}\033[0m" if colored else text


def _console(stderr: bool) -> Console:
    from rich.console import Console

    class Piped(Console):
        """Leaves a closed pipe to the app, where rich would exit with the code of a bug."""

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    stream = sys.stderr if stderr else sys.stdout
    return Piped(stderr=stderr, width=None if stream.isatty() else 200, highlight=False, soft_wrap=not stream.isatty())


def table(
    title: str | None, columns: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1, fold: bool = False
) -> None:
    """A table on stdout; the first `left` columns are words, the others numbers.

    With `fold` words are broken where the terminal is too narrow, else whatever is too long is cut off.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    grid: Table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    for number, column in enumerate(columns):
        breaks = fold and number < left
        grid.add_column(
            column,
            justify="left" if number < left else "right",
            no_wrap=not breaks,
            overflow="fold" if breaks else "ellipsis",
        )
    for row in rows:
        grid.add_row(*row)
    _console(stderr=False).print(grid)


@contextmanager
def progress(label: str, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A progress bar with bytes, rate and time left on a terminal; one line elsewhere; nothing if quiet."""
    if quiet or not sys.stderr.isatty():
        if not quiet:
            say(label)
        yield lambda done, total: None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=_console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def steps(quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """Progress of work in phases: a bar for each on a terminal, a line for each elsewhere, nothing if quiet.

    The callback takes what is being done, the steps done and those in all, from any thread.
    """
    if quiet or not sys.stderr.isatty():
        told: set[str] = set()

        def tell(label: str, done: int, total: int) -> None:
            if not quiet and label not in told:
                told.add(label)
                say(label)

        yield tell
        return
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=_console(stderr=True), transient=True) as bar:
        tasks: dict[str, Any] = {}

        def report(label: str, done: int, total: int) -> None:
            if label not in tasks:
                tasks[label] = bar.add_task(label[-60:], total=total)
            bar.update(tasks[label], completed=done, total=total)

        yield report


@contextmanager
def transfers(label: str, total: int | None, quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """Progress of many files: a bar for the whole and one for each under way; a line for each finished elsewhere.

    The callback takes a file's name, its bytes done and its bytes in all, from any thread.
    """
    if quiet or not sys.stderr.isatty():
        if not quiet:
            say(label)
        yield lambda name, done, size_: None if quiet or done < size_ else say(f"  {name}  {size(size_)}")
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=_console(stderr=True), transient=True) as bar:
        whole = bar.add_task(label, total=total)
        tasks: dict[str, Any] = {}
        counts: dict[str, int] = {}

        def report(name: str, done: int, of: int) -> None:
            counts[name] = done
            if name not in tasks:
                tasks[name] = bar.add_task(f"  {name[-40:]}", total=of)
            bar.update(tasks[name], completed=done, visible=done < of)
            bar.update(whole, completed=sum(counts.values()))

        yield report


def size(count: float) -> str:
    """Bytes for people: decimal GB or MB, three significant digits."""
    for limit, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= limit:
            value = count / limit
            return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f} {unit}"
    return f"{count:.0f} B"
