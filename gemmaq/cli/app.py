"""The typer app, and the only place that turns an error into an exit code."""

from __future__ import annotations

import gc
import io
import os
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Annotated, Any

import typer
import typer.core

from gemmaq import __version__
from gemmaq.cli import console, help, interrupts, library_warnings, ranks, streams
from gemmaq.cli.mistakes import usage_error
from gemmaq.cli.system import check_room, of_system
from gemmaq.errors import GemmaqError, UsageError

_PIPE_CLOSED = 141
_CommandLineError: type[Exception] = typer.BadParameter.__bases__[0]
"""What typer raises for any mistake on the command line; its module has moved, from click into typer."""


COMMANDS = {
    "pull": "Download a model from the Hugging Face Hub.",
    "inspect": "Describe a model: architecture, sizes, types, tokenizer.",
    "convert": "Quantize a model into GGUF, MLX or safetensors files.",
    "imatrix": "Compute importance matrices from text, merge and show them.",
    "sensitivity": "Measure what each tensor's type costs a model.",
    "verify": "Check an artifact, or compare it with its source.",
    "estimate-vram": "Estimate the memory a model needs, and which cards it fits.",
    "evaluate": "Measure how much quality a quantization costs.",
    "qat": "Train a model for int4 (QAT), with itself as the teacher.",
    "push": "Publish an artifact on the Hugging Face Hub.",
    "install": "Install an artifact into Ollama or LM Studio.",
    "env": "Show versions, machine and folders, for a bug report.",
}
"""Command -> the first sentence of its help, in the order in which the help lists them.

The module and the function of a command have its name. It is imported when the command runs or shows its help.
"""


class _Group(typer.core.TyperGroup):
    """Runs the commands; typer itself would answer Ctrl-C without a word, and a closed pipe with the code of a bug."""

    def invoke(self, ctx: Any) -> Any:
        try:
            with console.waiting.shown("getting ready"):
                result = super().invoke(ctx)
            console.flush()
        except KeyboardInterrupt:
            console.say(f"{interrupts.reason}, nothing half-written was kept")
            raise typer.Exit(interrupts.code() or interrupts.INTERRUPTED) from None
        except BrokenPipeError:
            streams.discard_stdout()
            raise typer.Exit(_PIPE_CLOSED) from None
        return result

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        name = cmd_name.replace("-", "_")
        function: Callable[..., None] = getattr(import_module(f"gemmaq.cli.{name}"), name)
        single = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
        single.command(cmd_name, cls=help.Command)(function)
        return typer.main.get_command(single)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        help.write_commands(formatter, COMMANDS)
        help.write_examples(formatter, "")
        help.write_options(formatter, self.get_params(ctx))


app = typer.Typer(
    name="gemmaq",
    cls=_Group,
    help="Quantize Gemma models for any local runtime.",
    epilog=(
        "Exit codes: 0 done, 1 bug, 2 usage, 3 input unusable, 4 authentication, 5 not found, 6 network, "
        "7 output exists or cannot be written, 8 verification failed, "
        "130 interrupted. GEMMAQ_DEBUG=1 shows the traceback of an unexpected error."
    ),
    invoke_without_command=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        console.out(f"gemmaq {__version__}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Show the help if no command is given."""
    if context.invoked_subcommand is None:
        console.say(context.get_help())
        raise typer.Exit(UsageError.exit_code)


def main() -> None:
    """Run the command line; every way to fail has its exit code."""
    gc.disable()  # nothing here makes cycles, and collections would walk a quarter of a million tokens again and again
    interrupts.install()
    library_warnings.leave_out()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a character shows ?
    streams.open_streams()
    try:
        check_room()
        with ranks.together():
            code = app(standalone_mode=False) or 0
        sys.exit(code)
    except GemmaqError as problem:
        _end_if_interrupted()
        console.error(problem)
        sys.exit(problem.exit_code)
    except _CommandLineError as mistake:
        console.error(usage_error(mistake, COMMANDS))
        sys.exit(UsageError.exit_code)
    except Exception as bug:
        _end_if_interrupted()
        if os.environ.get("GEMMAQ_DEBUG"):
            raise
        if (refusal := of_system(bug)) is not None:
            console.error(refusal)
            sys.exit(refusal.exit_code)
        console.say(f"error: {type(bug).__name__}: {bug}")
        console.say("this is a bug in gemmaq; GEMMAQ_DEBUG=1 shows where")
        sys.exit(1)


def _end_if_interrupted() -> None:
    """Take an error after a signal for the end by that signal: libraries turn an interrupt into errors of their own."""
    if interrupts.code() is not None:
        console.say(f"{interrupts.reason}, nothing half-written was kept")
        sys.exit(interrupts.code())
