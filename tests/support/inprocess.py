"""The command line without the half second a process takes to start."""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from damage import tree
from gemmaq.cli.app import main

VERIFICATION = 8


@dataclass(frozen=True)
class Done:
    """What a command said, and the errors among it."""

    code: int
    stdout: str
    stderr: str


def run_any(*arguments: object) -> Done:
    """Run a command, whatever comes of it."""
    out, err = io.StringIO(), io.StringIO()
    with patch.object(sys, "argv", ["gemmaq", *map(str, arguments)]), redirect_stdout(out), redirect_stderr(err):
        try:
            main()
            returned: object = 0
        except SystemExit as ended:
            returned = ended.code or 0
    return Done(int(str(returned)), out.getvalue(), err.getvalue())


def run(*arguments: object, code: int = 0) -> Done:
    """Run a command; asserts its exit code and, where that is not 0, exactly one error and no result.

    What is wrong with an artifact is a result.
    """
    done = run_any(*arguments)
    assert done.code == code, f"{arguments}: exit code {done.code}, not {code}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    if code:
        assert done.stderr.lower().count("error:") == 1
        assert done.stdout == "" or code == VERIFICATION
    return done


def refused(code: int, words: tuple[str, ...], *arguments: object, under: Path) -> Done:
    """Run a command that fails with this code and these words, and changes nothing under a folder."""
    before = tree(under)
    done = run(*arguments, code=code)
    assert tree(under) == before
    for word in words:
        assert word in done.stderr, (word, done.stderr)
    return done
