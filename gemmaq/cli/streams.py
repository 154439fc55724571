"""The standard streams of the process: closed ones, full ones."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from gemmaq.errors import OutputError


@contextmanager
def stdout_checked() -> Iterator[None]:
    """Say that stdout cannot be written, as on a full disk; a closed pipe is left to the caller.

    Raises:
        OutputError: It cannot.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        discard_stdout()
        raise OutputError(f"standard output cannot be written: {error.strerror}") from error


def discard_stdout() -> None:
    """Send the rest of the result nowhere, so that Python does not fail over it again at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def open_streams() -> None:
    """Give a process that was started with closed streams others in their place, before a file takes their numbers.

    What is written to a closed stdout fails, as on a full disk; a closed stderr takes everything.
    """
    for number, flags in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            found = os.open(os.devnull, flags)
            if found == number:
                os.set_inheritable(number, True)
            else:
                os.dup2(found, number)
                os.close(found)
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - for the rest of the process
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
