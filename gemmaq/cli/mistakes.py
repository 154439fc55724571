"""Mistakes on the command line that typer finds, in the words and style of all other errors."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from gemmaq.errors import UsageError, nearest


def usage_error(mistake: Any, commands: Collection[str]) -> UsageError:
    """The error for what typer raised.

    Args:
        mistake: Its exception. What its classes are called has not changed since click, unlike where they are.
        commands: Names of the commands.
    """
    kind, context = type(mistake).__name__, mistake.ctx
    helps = f"{context.command_path} --help" if context else None
    param = getattr(mistake, "param", None)
    name = _name(param) if param is not None else ""
    if kind == "MissingParameter" and name:
        return UsageError(f"{name} is missing", helps)
    if kind == "BadParameter" and name:
        return UsageError(f"{_source(context, param) or name} {mistake.message.rstrip('.')}", helps)
    if kind == "NoSuchOption":
        options = [name for each in context.command.params for name in (*each.opts, *each.secondary_opts)]
        return UsageError(f"there is no option {mistake.option_name}", _near(mistake.option_name, options, helps))
    if kind == "BadOptionUsage":
        takes = "takes no value" if "does not take" in mistake.message else "needs a value"
        return UsageError(f"{mistake.option_name} {takes}", helps or "give it one, or leave it out")
    text = mistake.format_message().rstrip(".")
    if command := re.match(r"No such command '(.*?)'", text):
        return UsageError(f"there is no command {command[1]}", _near(command[1], commands, helps))
    if extra := re.search(r"unexpected extra argument\S* \((.*)\)", text):
        return UsageError(f"unexpected argument: {extra[1]}", helps)
    return UsageError(text[:1].lower() + text[1:], helps)


def _name(param: Any) -> str:
    """What the user calls a parameter: SOURCE, or the long name of an option."""
    return str(param.metavar or param.name) if param.param_type_name == "argument" else str(max(param.opts, key=len))


def _source(context: Any, param: Any) -> str | None:
    """The environment variable that set a parameter, None if none did."""
    source = context.get_parameter_source(param.name) if context else None
    return param.envvar if getattr(source, "name", "") == "ENVIRONMENT" and isinstance(param.envvar, str) else None


def _near(name: str, known: Collection[str], helps: str | None) -> str | None:
    near = nearest(name.lstrip("-"), [other.lstrip("-") for other in known])
    near = [other for other in known if other.lstrip("-") in near[:1]]
    return f"did you mean {' or '.join(near)}?" if near else helps
