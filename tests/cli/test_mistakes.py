"""Mistakes on the command line, in the words of all other errors."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

import gemmaq
from gemmaq.cli.app import COMMANDS, app
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


def named_in_errors() -> dict[str, str]:
    """Option -> file, of every option in a text from which an error is made."""
    found: dict[str, str] = {}
    for path in sorted(Path(gemmaq.__file__).parent.rglob("*.py")):
        calls = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
        errors = (call for call in calls if getattr(call.func, "id", getattr(call.func, "attr", "")).endswith("Error"))
        for error in errors:
            texts = [node.value for node in ast.walk(error) if isinstance(node, ast.Constant)]
            for text in (text for text in texts if isinstance(text, str) and "llama-server" not in text):
                found |= dict.fromkeys(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*[a-z0-9]", text), path.name)
    return found


def test_every_option_that_an_error_names_exists() -> None:
    """In some command: which one an error belongs to is not in its text."""
    group: Any = get_command(app)
    params = [param for name in COMMANDS for param in group.get_command(None, name).params]
    known = {option for param in params for option in (*param.opts, *param.secondary_opts)}
    found = named_in_errors()
    assert len(found) > 30
    assert {option: file for option, file in found.items() if option not in known} == {}
