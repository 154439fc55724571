"""Results in every form; progress as lines of a pipe and as bars of a terminal."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemmaq.cli import console
from gemmaq.errors import InputError
from gemmaq.progress import Progress


def test_phases_are_announced_once(capfd):
    with console.progress(None, quiet=False) as progress:
        for done in range(3):
            progress(Progress("calibrating", done, 2, "layers"))
        progress(Progress("writing", 0, 2))
    assert capfd.readouterr().err == "calibrating\nwriting\n"


def test_a_title_stands_for_its_task(capfd):
    with console.progress("writing out", quiet=False) as progress:
        progress(Progress("writing", 1, 2, "bytes"))
    assert capfd.readouterr().err == "writing out\n"


def test_finished_items_get_a_line_with_their_size(capfd):
    with console.progress("two files", quiet=False, total=3000) as progress:
        progress(Progress("fetching", 500, 1000, "bytes", item="a"))
        progress(Progress("fetching", 2000, 2000, "bytes", item="b"))
        progress(Progress("fetching", 1000, 1000, "bytes", item="a"))
    assert capfd.readouterr().err == "two files\n  b  2.00 kB\n  a  1.00 kB\n"


def test_notes_are_shown_at_first_and_at_the_end(capfd):
    with console.progress(None, quiet=False) as progress:
        for done in (1, 2, 3):
            progress(Progress("training", done, 3, note=f"loss {1 / done:.2f}"))
    assert capfd.readouterr().err == "training: 1 of 3 steps  loss 1.00\ntraining: 3 of 3 steps  loss 0.33\n"


def test_quiet_shows_nothing(capfd):
    with console.progress("two files", quiet=True) as progress:
        progress(Progress("fetching", 5, 5, "bytes", item="a"))
    assert capfd.readouterr() == ("", "")


_BARS = """
from gemmaq.cli import console
from gemmaq.progress import Progress

with console.progress("two files", quiet=False, total=4_000_000) as progress:
    progress(Progress("fetching", 1_000_000, 3_000_000, "bytes", item="a.gguf"))
with console.progress(None, quiet=False) as progress:
    progress(Progress("calibrating", 0, None, "layers"))
    progress(Progress("calibrating", 1, 26, "layers"))
    progress(Progress("training", 4, 9, note="loss 0.25"))
"""


def test_bars_on_a_terminal():
    """A bar for the whole and for the file, amounts in their units, and a note in place of the time left."""
    text = _on_a_terminal(_BARS)
    for words in ("two files", "a.gguf", "1.00 MB of 4.00 MB", "1.00 MB of 3.00 MB", "1 of 26 layers"):
        assert words in text
    assert "4 of 9 steps  loss 0.25" in text


_ERROR = """
from gemmaq.cli import console
from gemmaq.errors import InputError

console.error(InputError("is not a GGUF file", "name another", path="a"))
"""


def test_errors_are_coloured_only_where_the_terminal_can():
    assert "\033[1;31merror:\033[0m a is not a GGUF file" in _on_a_terminal(_ERROR)
    for plain in ({"TERM": "dumb"}, {"NO_COLOR": "1"}):
        assert _on_a_terminal(_ERROR, **plain).splitlines() == ["error: a is not a GGUF file", "  try: name another"]


def test_a_dumb_terminal_gets_lines_for_bars():
    assert _on_a_terminal(_BARS, TERM="dumb").splitlines() == [
        "two files",
        "calibrating",
        "training: 4 of 9 steps  loss 0.25",
    ]


@pytest.mark.parametrize(
    ("flags", "out"),
    [
        ((False, False), "for people\n"),
        ((False, True), "essential\n"),
        ((True, False), '{"schema": "gemmaq.test/1", "é": 1}\n'),
        ((True, True), '{"schema": "gemmaq.test/1", "é": 1}\n'),
    ],
)
def test_one_result_in_the_form_asked_for(flags, out, capsys):
    output = console.Output("test", *flags)
    output.say("a remark")
    output.emit(lambda: {"é": 1}, essential=lambda: ["essential"], show=lambda: console.out("for people"))
    assert capsys.readouterr() == (out, "" if any(flags) else "a remark\n")


def test_only_the_main_process_prints(capsys):
    output = console.Output("test", False, False, main=False)
    output.say("a remark")
    output.emit(lambda: {}, essential=lambda: ["essential"], show=lambda: console.out("for people"))
    assert capsys.readouterr() == ("", "")


def _on_a_terminal(code: str, **environment: str) -> str:
    """What a Python program shows on a terminal of 100 columns."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": "100", "TERM": "xterm", **environment}
    with subprocess.Popen([sys.executable, "-c", code], stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                block = os.read(ours, 65536)
            except OSError:  # Linux answers so once the other end is closed
                break
            if not block:
                break
            shown += block
        assert process.wait() == 0, shown.decode()
    os.close(ours)
    return shown.decode()


HOSTILE = st.text(st.sampled_from("a [/]{}\x1b\x07\x08\r\n\t\x7f\x9b\u202e\u2028\ud800é"), max_size=12)


@given(text=HOSTILE)
def test_no_text_controls_the_terminal(text):
    """Whatever the way it is printed, and whatever looks like markup."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with redirect_stdout(stdout), redirect_stderr(stderr):
        console.error(InputError(text, text))
        console.warn(text)
        console.note(text)
    assert len(stderr.getvalue().splitlines()) == (4 if text else 3)
    with redirect_stdout(stdout), redirect_stderr(stderr):
        console.say(text)
        console.out(text)
        console.table(text, [text, "number"], [[text, "1"]])
        console.emit_json("test", {"text": text, text: 1})
    shown = stdout.getvalue() + stderr.getvalue()
    assert all(letter in "\n\t" or letter.isprintable() for letter in shown)
    assert json.loads(stdout.getvalue().splitlines()[-1])["text"] == text


def test_markup_of_rich_is_text(capsys):
    console.table("[bold]title[/]", ["[red]head"], [["[/nothing] [link=x]y"]])
    shown = capsys.readouterr().out
    assert "[bold]title[/]" in shown and "[red]head" in shown and "[/nothing] [link=x]y" in shown
    assert "[/x] {y}" in _on_a_terminal(_BARS.replace("training", "[/x] {y}"))
