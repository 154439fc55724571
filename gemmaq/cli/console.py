"""Printing, which happens here alone: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from gemmaq.cli import terminal
from gemmaq.cli.bars import progress as progress
from gemmaq.cli.streams import discard_stdout, stdout_checked
from gemmaq.cli.tables import fields as fields
from gemmaq.cli.tables import table as table
from gemmaq.cli.terminal import duration as duration
from gemmaq.cli.terminal import printable as printable
from gemmaq.cli.terminal import say as say
from gemmaq.cli.terminal import size as size
from gemmaq.cli.terminal import waiting as waiting
from gemmaq.errors import GemmaqError, OutputError


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

    def __post_init__(self) -> None:
        if self.silent:
            waiting.off()

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


def out(text: str) -> None:
    """Print a line of the result, on stdout."""
    terminal.write("\n".join(terminal.broken(line, sys.stdout) for line in printable(text).split("\n")))


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
    terminal.write(terminal.CONTROLS.sub(lambda match: f"\\u{ord(match[0]):04x}", text))


def warn(text: str) -> None:
    """Print something that costs the user something, on stderr."""
    terminal.say_styled("warning:", "33", text)


def note(text: str) -> None:
    """Print what was taken, left out or chosen otherwise, and costs nothing, on stderr."""
    terminal.say_styled("note:", "36", text)


def error(problem: GemmaqError) -> None:
    """Print what is wrong and what to do next, on stderr."""
    terminal.say_styled("error:", "31", problem.message)
    if problem.hint:
        terminal.say_styled("  try:", "36", problem.hint)
