"""Mistakes on the command line, in the words of all other errors."""

from __future__ import annotations

import pytest

from gemmaq.cli.mistakes import usage_error
from inprocess import run


class BadParameter(Exception):
    """As typer raises it where it knows no parameter."""

    ctx = None
    message = "x"

    def format_message(self) -> str:
        return "Invalid value: x."


def test_a_mistake_without_a_command_is_told_as_it_is() -> None:
    error = usage_error(BadParameter(), ["convert"])
    assert (error.message, error.hint, error.exit_code) == ("invalid value: x", None, 2)


def test_a_value_from_the_environment_is_told_by_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEMMAQ_THREADS", "many")
    assert "error: GEMMAQ_THREADS 'many' is not a whole number" in run("verify", "x", code=2).stderr


@pytest.mark.parametrize(
    ("words", "near"),
    [
        (("convrt",), "did you mean convert?"),
        (("convert", "x", "--qant", "q4_0"), "did you mean --quant"),
        (("estimate-vram", "--gpus", "4090"), "did you mean --gpu?"),
        (("convert", "x", "--zzz"), "convert --help"),
    ],
)
def test_a_name_nearby_is_suggested(words: tuple[str, ...], near: str) -> None:
    assert near in run(*words, code=2).stderr
