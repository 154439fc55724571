"""Printing, which happens here alone: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from gemmaq.cli.streams import discard_stdout, stdout_checked
from gemmaq.errors import GemmaqError, OutputError
from gemmaq.progress import Progress, ProgressCallback, ignore

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that control a terminal, and halves of surrogate pairs, which cannot be written."""
_NOTE_SECONDS = 15.0
"""Between two lines about a task with a note."""


@dataclass(frozen=True, slots=True)
class Output:
    """The one result of a command, in the form that its flags ask for.

    Attributes:
        command: Name of the command, for the schema of its JSON.
        as_json: Print one JSON object.
        quiet: Print only the essential value.
        main: Whether this process prints at all; of several that compute together only one does.
    """

    command: str
    as_json: bool
    quiet: bool
    main: bool = True

    @property
    def silent(self) -> bool:
        """Whether progress and remarks for people are left out."""
        return self.as_json or self.quiet or not self.main

    def say(self, text: str) -> None:
        """Print a remark for people, on stderr."""
        if not self.silent:
            say(text)

    def emit(
        self,
        document: Callable[[], Mapping[str, Any]],
        *,
        essential: Callable[[], Iterable[str]],
        show: Callable[[], None],
        made: bool = False,
    ) -> None:
        """Print the result.

        Args:
            document: Called for the JSON object.
            essential: Called for the lines that are printed if quiet.
            show: Prints the result for people.
            made: Whether `essential` names what was made, which the error says.

        Raises:
            OutputError: Stdout cannot be written.
            BrokenPipeError: The reader of stdout closed it, and nothing was made.
        """
        if not self.main:
            return
        try:
            if self.as_json:
                emit_json(self.command, document())
            elif self.quiet:
                for line in essential():
                    out(line)
            else:
                show()
            flush()
        except (BrokenPipeError, OutputError) as error:
            names = " ".join(essential()) if made else ""
            if not names:
                raise
            discard_stdout()
            problem = error.problem if isinstance(error, OutputError) else "standard output was closed by its reader"
            raise OutputError(problem, f"the result is {names}") from error


def printable(text: str) -> str:
    """Text for a terminal: characters that control it are spelled out, apart from line breaks and tabs.

    Names and texts of files may hold any character. Some hide or overwrite what stands before them, change the
    direction of writing, or give commands to the terminal.
    """
    return _CONTROLS.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def _line(text: str) -> str:
    """The same on one line, so that no text from outside looks like a line of ours."""
    return printable(text).replace("\n", "\\n")


def out(text: str) -> None:
    """Print a line of the result, on stdout."""
    _write(printable(text))


def _write(text: str) -> None:
    with stdout_checked():
        sys.stdout.write(text + "\n")


def flush() -> None:
    """Bring the result to its reader.

    Raises:
        OutputError: Stdout cannot be written, as on a full disk.
    """
    with stdout_checked():
        sys.stdout.flush()


def emit_json(command: str, value: Mapping[str, Any]) -> None:
    """Print the one JSON object of a command, with its schema; escaped where stdout does not take all of Unicode."""
    escaped = (sys.stdout.encoding or "utf-8").lower().replace("-", "") != "utf8"
    text = json.dumps({"schema": f"gemmaq.{command}/1", **value}, ensure_ascii=escaped)
    _write(_CONTROLS.sub(lambda match: f"\\u{ord(match[0]):04x}", text))


def say(text: str) -> None:
    """Print a line for the person watching, on stderr."""
    sys.stderr.write(printable(text) + "\n")


def _say_styled(word: str, color: str, text: str) -> None:
    sys.stderr.write(f"{_styled(word, color)} {_line(text)}\n")


def warn(text: str) -> None:
    """Print something that costs the user something, on stderr."""
    _say_styled("warning:", "33", text)


def note(text: str) -> None:
    """Print what was taken, left out or chosen otherwise, and costs nothing, on stderr."""
    _say_styled("note:", "36", text)


def error(problem: GemmaqError) -> None:
    """Print what is wrong and what to do next, on stderr."""
    _say_styled("error:", "31", problem.message)
    if problem.hint:
        _say_styled("  try:", "36", problem.hint)


def _styled(text: str, color: str) -> str:
    return f"\033[1;{color}m{text}\033[0m" if _draws() and not os.environ.get("NO_COLOR") else text


def _draws() -> bool:
    """Whether stderr is a terminal that can move its cursor and show colours."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def _console(stderr: bool) -> Console:
    from rich.console import Console

    class Piped(Console):
        """Leaves a closed pipe to the app, where rich would exit with the code of a bug."""

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    stream = sys.stderr if stderr else sys.stdout
    return Piped(stderr=stderr, width=None if stream.isatty() else 200, highlight=False, soft_wrap=not stream.isatty())


def table(
    title: str | None,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    left: int = 1,
    fold: bool = False,
) -> None:
    """Print a table on stdout.

    Args:
        title: Line above it, or None.
        columns: Heads of the columns.
        rows: Cells.
        left: Number of columns, from the left, that hold words; the others hold numbers.
        fold: Break words where the terminal is too narrow; otherwise cells that are too long are cut.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    head = None if title is None else Text(printable(title))
    grid: Table = Table(title=head, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    for number, column in enumerate(columns):
        breaks = fold and number < left
        grid.add_column(
            Text(printable(column)),
            justify="left" if number < left else "right",
            no_wrap=not breaks,
            overflow="fold" if breaks else "ellipsis",
        )
    for row in rows:
        grid.add_row(*(Text(printable(cell)) for cell in row))
    with stdout_checked():
        _console(stderr=False).print(grid)


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
    elif not _draws():
        if title is not None:
            say(title)
        yield _lines(titled=title is not None)
    else:
        with _bars(title, total) as report:
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
    """A bar for the title or for each task, and one below it for each item under way."""
    from rich.progress import BarColumn, ProgressColumn, Task, TaskID, TextColumn
    from rich.progress import Progress as Bars
    from rich.text import Text

    class Figures(ProgressColumn):
        """What a bar cannot show: amounts, and the rate with the time left or a note."""

        def render(self, task: Task) -> Text:
            latest: Progress | None = task.fields["latest"]
            return Text("" if latest is None else _figures(latest, task.speed, task.time_remaining))

    lock = threading.Lock()
    columns = TextColumn("{task.description}", markup=False), BarColumn(), Figures()
    with Bars(*columns, console=_console(stderr=True), transient=True) as bars:
        whole = None if title is None else bars.add_task(_line(title), total=total, latest=None)
        tasks: dict[tuple[str, str | None], TaskID] = {}
        counts: dict[str, int] = {}

        def report(progress: Progress) -> None:
            key = (progress.task, progress.item)
            with lock:
                if whole is not None and progress.item is None:
                    tasks[key] = whole
                if key not in tasks:
                    name = progress.task[-60:] if progress.item is None else f"  {progress.item[-40:]}"
                    tasks[key] = bars.add_task(_line(name), total=progress.total, latest=progress)
                if progress.item is not None and whole is not None:
                    counts[progress.item] = progress.done
                    done = sum(counts.values())
                    bars.update(whole, completed=done, latest=replace(progress, done=done, total=total))
            shown = progress.item is None or progress.done != progress.total
            bars.update(tasks[key], completed=progress.done, total=progress.total, visible=shown, latest=progress)

        yield report


def _amount(progress: Progress) -> str:
    """`3 of 26 layers`, `1.20 GB of 4.00 GB`, or `4.00 GB` where all bytes are there."""
    counts = [progress.done] if progress.total is None else [progress.done, progress.total]
    if progress.unit == "bytes":
        return " of ".join(dict.fromkeys(map(size, counts)))
    return f"{' of '.join(f'{count:,}' for count in counts)} {progress.unit}"


def _figures(progress: Progress, speed: float | None, seconds: float | None) -> str:
    """Amount, rate and time left of a bar; its note in place of the last two."""
    parts = [_amount(progress)]
    if progress.note:
        parts.append(progress.note)
    else:
        parts += [f"{size(speed)}/s"] if speed and progress.unit == "bytes" else []
        parts += [f"{duration(seconds)} left"] if seconds and progress.done != progress.total else []
    return "  ".join(parts)


def duration(seconds: float) -> str:
    """`0:09`, `12:30` or `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def size(count: float) -> str:
    """Bytes for people: decimal GB or MB, three significant digits."""
    for limit, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= limit:
            value = count / limit
            return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f} {unit}"
    return f"{count:.0f} B"
