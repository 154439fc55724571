"""The examples in the help: every one parses, and every option that comes first exists."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
from typer.main import get_command

from gemmaq.cli.app import COMMANDS, app
from gemmaq.cli.examples import EXAMPLES, FIRST, START


def test_every_command_has_examples() -> None:
    assert EXAMPLES.keys() == {"", *COMMANDS}
    assert {*START, *FIRST} <= COMMANDS.keys()


@pytest.mark.parametrize("command", EXAMPLES)
def test_every_example_parses(command: str) -> None:
    """With values that their options take; what they name does not have to exist."""
    group: Any = get_command(app)
    for purpose, line in EXAMPLES[command]:
        program, name, *arguments = shlex.split(line)
        assert program == "gemmaq" and (command in ("", name) or not purpose), line
        parsed = group.get_command(None, name).make_context(name, arguments)
        assert parsed.params, line


@pytest.mark.parametrize("command", EXAMPLES)
def test_examples_fit_a_terminal_of_80_columns(command: str) -> None:
    assert all(len(line) <= 78 and len(purpose) <= 76 for purpose, line in EXAMPLES[command])


@pytest.mark.parametrize("command", FIRST)
def test_options_that_come_first_exist(command: str) -> None:
    group: Any = get_command(app)
    known = {option for param in group.get_command(None, command).params for option in param.opts}
    assert known >= {*FIRST[command]}
