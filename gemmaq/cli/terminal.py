"""Writing to the terminal: text that cannot control it, lines that break between words, and what it can show."""

from __future__ import annotations

import os
import re
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from gemmaq.cli.streams import stdout_checked

if TYPE_CHECKING:
    from rich.console import Console

CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that control a terminal, and halves of surrogate pairs, which cannot be written."""
_PROGRAMS = ("gemmaq ", "pip ", "llama-server ", "ollama ", "mlx_", "vllm ", "python ")
"""How lines begin that are made to be copied, and are not broken therefore."""
_PATIENCE = 1.5
"""Seconds without a word after which a terminal shows what is being waited for."""


def printable(text: str) -> str:
    """Text for a terminal: characters that control it are spelled out, apart from line breaks and tabs.

    Names and texts of files may hold any character. Some hide or overwrite what stands before them, change the
    direction of writing, or give commands to the terminal.
    """
    return CONTROLS.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def on_one_line(text: str) -> str:
    """The same on one line, so that no text from outside looks like a line of ours."""
    return printable(text).replace("\n", "\\n")


def write(text: str) -> None:
    """Write a line to stdout as it is."""
    waiting.hush()
    with stdout_checked():
        sys.stdout.write(text + "\n")


def say(text: str) -> None:
    """Print a line for the person watching, on stderr."""
    waiting.hush()
    sys.stderr.write("\n".join(broken(line, sys.stderr) for line in printable(text).split("\n")) + "\n")


def say_styled(word: str, color: str, text: str) -> None:
    """Print a line on stderr that begins with a coloured word."""
    waiting.hush()
    lines = broken(f"{word} {on_one_line(text)}", sys.stderr, hanging=word.startswith(" "))
    sys.stderr.write(lines.replace(word, _styled(word, color), 1) + "\n")


def broken(line: str, stream: object, *, hanging: bool = False) -> str:
    """A line broken between words where a terminal would break it anywhere; lines to be copied stay whole."""
    columns = width(stream)
    start = line.partition(": ")[2] if hanging else line
    if columns is None or len(line) <= columns or start.lstrip().startswith(_PROGRAMS):
        return line
    indent = " " * (len(line) - len(line.lstrip()) + (5 if hanging else 0))
    return textwrap.fill(
        line,
        columns,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
        replace_whitespace=False,
    )


def width(stream: object) -> int | None:
    """Columns of the terminal that a stream is, None where it is none."""
    if not getattr(stream, "isatty", bool)():
        return None
    named = os.environ.get("COLUMNS", "")
    if named.isdigit() and int(named):
        return int(named)
    try:
        return os.get_terminal_size(stream.fileno()).columns or None  # type: ignore[attr-defined]
    except (OSError, ValueError):
        return None


def _styled(text: str, color: str) -> str:
    return f"\033[1;{color}m{text}\033[0m" if draws() and not os.environ.get("NO_COLOR") else text


def draws() -> bool:
    """Whether stderr is a terminal that can move its cursor and show colours."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def rich_console(*, stderr: bool) -> Console:
    """A console of rich, which leaves a closed pipe to the app; without a terminal its lines have no end."""
    from rich.console import Console

    class Piped(Console):
        """Where rich would exit with the code of a bug."""

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    columns = width(sys.stderr if stderr else sys.stdout)
    return Piped(stderr=stderr, width=columns or 10_000, highlight=False, soft_wrap=columns is None)


class Waiting:
    """Shows what is being waited for, and for how long, where nothing else was printed for a while.

    It is a line on a terminal that goes when anything is printed.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._what, self._since, self._begun = "", 0.0, 0.0
        self._between: tuple[str, float] | None = None
        self._is_on = self._is_drawn = False

    @contextmanager
    def shown(self, what: str) -> Iterator[None]:
        """Show it from now on to the end; `what` until `doing` says otherwise."""
        if not draws():
            yield
            return
        self._what, self._since, self._begun, self._is_on = what, time.monotonic(), time.monotonic(), True
        self._ended.clear()
        thread = threading.Thread(target=self._run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            self.hush()
            self._is_on = False

    def doing(self, what: str) -> None:
        """Say what is done from now on: a present participle with its object."""
        with self._lock:
            self._what, self._begun = on_one_line(what), time.monotonic()

    def compiling(self, begins: bool) -> None:
        """Say meanwhile that loops are compiled, until that ends."""
        with self._lock:
            self._between = ("compiling loops for this processor", time.monotonic()) if begins else None

    @property
    def told_between(self) -> str | None:
        """What is done in the midst of that."""
        between = self._between
        return between[0] if between else None

    def hush(self) -> None:
        """Take the line away, as something is about to be printed."""
        if self._is_on:
            with self._lock:
                self._erase()
                self._since = time.monotonic()

    def off(self) -> None:
        """Show nothing any more."""
        self.hush()
        self._is_on = False

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Show nothing meanwhile."""
        was_on = self._is_on
        self.off()
        try:
            yield
        finally:
            self._is_on = was_on
            self._since = self._begun = time.monotonic()
            self._what = "finishing"

    def _run(self) -> None:
        while not self._ended.wait(0.25):
            with self._lock:
                now = time.monotonic()
                if self._is_on and now - self._since > _PATIENCE and not self._ended.is_set():
                    what, begun = self._between or (self._what, self._begun)
                    line = f"{what}  {duration(now - begun)}"[: (width(sys.stderr) or 80) - 1]
                    os.write(2, f"\r\033[K{line}".encode(sys.stderr.encoding or "ascii", "replace"))
                    self._is_drawn = True

    def _erase(self) -> None:
        if self._is_drawn:
            os.write(2, b"\r\033[K")
            self._is_drawn = False


waiting = Waiting()
"""The one line of this kind; past Python's own buffers, so that no thread holds them when the interpreter ends."""


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
