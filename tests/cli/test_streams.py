"""Standard streams that are closed or full: what was made is named, and the exit code is that of output."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gemmaq.cli import console, streams
from gemmaq.errors import OutputError


def gemmaq(*arguments: object, redirect: str) -> subprocess.CompletedProcess[str]:
    words = " ".join(f"'{word}'" for word in (sys.executable, "-m", "gemmaq", *arguments))
    return subprocess.run(["bash", "-c", f"{words} {redirect}"], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("redirect", [">&-", "> /dev/full", "<&- >&-"])
def test_an_artifact_that_was_made_is_named(redirect: str, tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "made {here} {}"  # braces in a folder's name are no placeholders
    done = gemmaq("convert", tiny, "-o", out, "--quant", "q4_0", redirect=redirect)
    assert done.returncode == 7 and "standard output cannot be written" in done.stderr
    assert f"the result is {out}" in done.stderr and "Traceback" not in done.stderr
    assert (out / "SHA256SUMS").is_file()


def test_a_plan_is_nothing_that_was_made(tiny: Path, tmp_path: Path) -> None:
    done = gemmaq("convert", tiny, "-o", tmp_path / "out", "--quant", "q4_0", "--dry-run", redirect="> /dev/full")
    assert done.returncode == 7 and "standard output cannot be written" in done.stderr
    assert "the result is" not in done.stderr


def test_a_closed_stderr_is_no_bug() -> None:
    done = gemmaq("inspect", "absent/model.gguf", redirect="2>&-")
    assert (done.returncode, done.stdout) == (5, "")


class Full:
    """A stdout that fails."""

    encoding = "utf-8"

    def __init__(self, error: OSError) -> None:
        self.error = error
        self.fileno: Callable[[], int] = lambda: os.open(os.devnull, os.O_WRONLY)

    def write(self, text: str) -> None:
        raise self.error

    def flush(self) -> None:
        raise self.error


@pytest.mark.parametrize("made", [True, False])
@pytest.mark.parametrize("form", [(False, False), (True, False), (False, True)])
def test_results_that_cannot_be_printed(made: bool, form: tuple[bool, bool], monkeypatch: pytest.MonkeyPatch) -> None:
    output = console.Output("convert", *form)

    def emit() -> None:
        output.emit(dict, essential=lambda: ["/made/it"], show=lambda: console.out("made"), made=made)

    monkeypatch.setattr(sys, "stdout", Full(OSError(28, "No space left on device")))
    with pytest.raises(OutputError, match="cannot be written: No space left") as failed:
        emit()
    assert failed.value.hint == ("the result is /made/it" if made else None)
    monkeypatch.setattr(sys, "stdout", Full(BrokenPipeError(32, "Broken pipe")))
    with pytest.raises(OutputError if made else BrokenPipeError):
        emit()


def test_open_streams_changes_nothing_where_all_are_open() -> None:
    before = sys.stdout, sys.stderr
    streams.open_streams()
    assert (sys.stdout, sys.stderr) == before
