"""Results in every form, and text that does nothing to the terminal."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stderr, redirect_stdout

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemmaq.cli import console
from gemmaq.errors import InputError
from terminals import on_a_terminal

_ERROR = """
from gemmaq.cli import console
from gemmaq.errors import InputError

console.error(InputError("is not a GGUF file", "name another", path="a"))
"""


def test_errors_are_coloured_only_where_the_terminal_can():
    assert "\033[1;31merror:\033[0m a is not a GGUF file" in on_a_terminal(_ERROR)
    for plain in ({"TERM": "dumb"}, {"NO_COLOR": "1"}):
        assert on_a_terminal(_ERROR, **plain).splitlines() == ["error: a is not a GGUF file", "  try: name another"]


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
