"""The help of gemmaq and of its commands: sentences that are never cut, the usual first, and examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import typer.core

from gemmaq.cli.examples import EXAMPLES, FIRST, START
from gemmaq.errors import UsageError


class Command(typer.core.TyperCommand):
    """A command whose help is ours, and which refuses a second value for an option that takes one.

    typer drops the first of two values, and its help shows types of Python.
    """

    def make_parser(self, ctx: Any) -> Any:
        """A parser that looks at how often options are given."""
        parser: Any = super().make_parser(ctx)
        parse = parser.parse_args

        def parse_args(args: list[str]) -> Any:
            found = parse(args=args)
            _check_single(found[2])
            return found

        parser.parse_args = parse_args
        return parser

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """`SOURCE` where typer has `{SOURCE}`."""
        return [piece.replace("{", "").replace("}", "") for piece in super().collect_usage_pieces(ctx)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments, then options: first those that most people need."""
        params = self.get_params(ctx)
        _write(formatter, "Arguments", [each for each in params if each.param_type_name == "argument"])
        options = [each for each in params if each.param_type_name == "option"]
        first = [each for name in FIRST.get(self.name or "", ()) for each in options if name in each.opts]
        if first:
            _write(formatter, "Options that most people need", first)
        _write(formatter, "Other options" if first else "Options", [each for each in options if each not in first])

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """The examples."""
        write_examples(formatter, self.name or "")


def _check_single(given: Sequence[Any]) -> None:
    """Refuse several values for an option that takes one; `given` are the parameters in the order of the line.

    Raises:
        UsageError: naming the option.
    """
    for option, times in Counter(given).items():
        if times > 1 and option.param_type_name == "option" and not (option.multiple or option.is_flag):
            raise UsageError(f"{max(option.opts, key=len)} is given {times} times, and takes one value", "give it once")


def write_commands(formatter: Any, commands: Mapping[str, str]) -> None:
    """The commands with the first sentences of their help: first those that most people need."""
    for title, names in (
        ("Commands that most people need", START),
        ("Other commands", [name for name in commands if name not in START]),
    ):
        with formatter.section(title):
            formatter.write_dl([(name, commands[name]) for name in names])


def write_options(formatter: Any, options: Sequence[Any]) -> None:
    """A list of options under a heading."""
    _write(formatter, "Options", options)


def write_examples(formatter: Any, command: str) -> None:
    """The examples of a command, each under a line that says what it is for; no line is broken."""
    if command not in EXAMPLES:
        return
    with formatter.section("Examples"):
        for purpose, line in EXAMPLES[command]:
            formatter.write(f"  # {purpose}\n" if purpose else "")
            formatter.write(f"  {line}\n")


def _write(formatter: Any, title: str, params: Sequence[Any]) -> None:
    rows = [(_names(param), _text(param)) for param in params if not getattr(param, "hidden", False)]
    if rows:
        with formatter.section(title):
            formatter.write_dl(rows)


def _names(param: Any) -> str:
    """`-o, --output DIR`, `--cache / --no-cache`, or the name of an argument."""
    if param.param_type_name == "argument":
        return str(param.metavar)
    value = "" if param.is_flag else f" {param.metavar}"
    others = f" / {', '.join(param.secondary_opts)}" if param.secondary_opts else ""
    return f"{', '.join(sorted(param.opts, key=len))}{value}{others}"


def _text(param: Any) -> str:
    """What an option is for, whether it has to be given, its default, and the variable that sets it."""
    parts = [param.help or ""]
    is_switch = param.param_type_name == "option" and param.is_flag
    default = param.default
    if param.required and param.param_type_name == "option":
        parts.append("Has to be given.")
    if param.show_default and param.secondary_opts and isinstance(default, bool):
        parts.append(f"Default: {(param.opts if default else param.secondary_opts)[0]}.")
    elif param.show_default and isinstance(default, str | int | float) and not is_switch and default != "":
        parts.append(f"Default: {default}.")
    if getattr(param, "envvar", None):
        parts.append(f"Variable: {param.envvar}.")
    return " ".join(filter(None, parts))
