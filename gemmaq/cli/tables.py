"""Tables that can be read on a terminal of any width: columns are left out, or rows become lists; no cell is cut."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from gemmaq.cli import terminal
from gemmaq.cli.streams import stdout_checked
from gemmaq.cli.terminal import printable

if TYPE_CHECKING:
    from rich.table import Table

_LEAST_FOLDED = 16
"""Characters to which a column of words is narrowed at most."""
_LEAST_TEXT = 24
"""Columns beside labels without which texts go below them."""


def table(
    title: str | None,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    left: int = 1,
    fold: bool = False,
    spare: Sequence[str] = (),
) -> None:
    """Print a table on stdout.

    Where the terminal is too narrow, columns that can be spared are left out, with a line that says so. If it still is,
    every row becomes a list.

    Args:
        title: Line above it, or None.
        columns: Heads of the columns.
        rows: Cells.
        left: Number of columns, from the left, that hold words; the others hold numbers.
        fold: Whether words may be broken in the columns of words.
        spare: Heads of the columns that can be left out, the first of them first.
    """
    room = terminal.width(sys.stdout)
    kept = list(range(len(columns)))
    missing: list[str] = []
    for head in (*spare, None):
        widths = [_width(columns[at], [row[at] for row in rows]) for at in kept]
        least = [
            min(width, _LEAST_FOLDED) if fold and at < left else width for at, width in zip(kept, widths, strict=True)
        ]
        if room is None or sum(least) + 3 * (len(kept) - 1) + 2 <= room:
            break
        if head is None:
            _list(title, columns, rows, left)
            return
        if head in columns:
            kept.remove(columns.index(head))
            missing.append(head)
    _print(
        title,
        [columns[at] for at in kept],
        [[row[at] for at in kept] for row in rows],
        sum(at < left for at in kept),
        fold,
    )
    if missing:
        names = ", ".join(" ".join(head.split()) or "one" for head in missing)
        terminal.say(f"Left out, as the terminal is narrow: {names}. --json has all.")


def _width(head: str, cells: Sequence[str]) -> int:
    from rich.cells import cell_len

    return max(cell_len(line) for text in (head, *cells) for line in printable(text).split("\n"))


def _print(title: str | None, columns: Sequence[str], rows: Sequence[Sequence[str]], left: int, fold: bool) -> None:
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
            overflow="fold",
        )
    for row in rows:
        grid.add_row(*(Text(printable(cell)) for cell in row))
    terminal.waiting.hush()
    with stdout_checked():
        terminal.rich_console(stderr=False).print(grid)


def _list(title: str | None, columns: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> None:
    """Every row as a list of its numbers, under its words."""
    heads = [" ".join(head.split()) for head in columns]
    if title is not None:
        fields([("", printable(title))])
        terminal.write("")
    for row in rows:
        fields([("", ", ".join(filter(None, row[:left])))])
        fields([(f"  {head}", cell) for head, cell in zip(heads[left:], row[left:], strict=True) if cell])
    terminal.write("")


def fields(rows: Mapping[str, str] | Sequence[tuple[str, str]]) -> None:
    """Print labels with a text beside each, on stdout; texts are broken between words where the terminal ends."""
    pairs = list(rows.items() if isinstance(rows, Mapping) else rows)
    columns, longest = terminal.width(sys.stdout), max((len(label) for label, _ in pairs), default=0)
    start = longest + 2 if longest else 0
    for label, text in pairs:
        line = f"{printable(label):<{start}}{printable(text)}"
        if columns is None or len(line) <= columns:
            terminal.write(line.rstrip())
            continue
        below = columns - start < _LEAST_TEXT
        indent = " " * (4 if below else start)
        body = textwrap.fill(
            printable(text),
            columns,
            initial_indent=indent if below else f"{printable(label):<{start}}",
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
        terminal.write(f"{printable(label)}\n{body}" if below else body)
