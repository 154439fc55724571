"""The typer app, and the only place that turns an error into an exit code."""

from __future__ import annotations

import gc
import os
import signal
import sys
from typing import Annotated, Any

import typer
import typer.core

from gemmaq import __version__
from gemmaq.cli import console
from gemmaq.cli.convert import convert
from gemmaq.cli.estimate_vram import estimate_vram
from gemmaq.cli.evaluate import evaluate
from gemmaq.cli.imatrix import imatrix
from gemmaq.cli.inspect import inspect
from gemmaq.cli.install import install
from gemmaq.cli.pull import pull
from gemmaq.cli.push import push
from gemmaq.cli.qat import qat
from gemmaq.cli.verify import verify
from gemmaq.errors import GemmaqError

INTERRUPTED = 130
_PIPE_CLOSED = 141
_TERMINATED = 143


class _Group(typer.core.TyperGroup):
    """Runs the commands; typer itself would answer Ctrl-C without a word, and a closed pipe with the code of a bug."""

    def invoke(self, ctx: Any) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except KeyboardInterrupt:
            console.say("interrupted, nothing half-written was kept")
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(_PIPE_CLOSED) from None
        return result


app = typer.Typer(
    name="gemmaq",
    cls=_Group,
    help="Quantize Gemma 3 for any local runtime.",
    epilog=(
        "Exit codes: 0 done, 1 bug, 2 usage, 3 input unusable, 4 authentication, 5 not found, 6 network, "
        "7 output exists or cannot be written, 8 verification failed, "
        "130 interrupted. GEMMAQ_DEBUG=1 shows the traceback of an unexpected error."
    ),
    no_args_is_help=True,
    add_completion=False,
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
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options before any command."""


app.command("pull")(pull)
app.command("inspect")(inspect)
app.command("convert")(convert)
app.command("imatrix")(imatrix)
app.command("verify")(verify)
app.command("estimate-vram")(estimate_vram)
app.command("evaluate")(evaluate)
app.command("qat")(qat)
app.command("push")(push)
app.command("install")(install)


def main() -> None:
    """Run the command line; every way to fail has its exit code."""
    gc.disable()  # nothing here makes cycles, and collections would walk a quarter of a million tokens again and again
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_TERMINATED))
    try:
        app()
    except GemmaqError as problem:
        console.error(problem)
        sys.exit(problem.exit_code)
    except Exception as bug:
        if os.environ.get("GEMMAQ_DEBUG"):
            raise
        console.say(f"error: {type(bug).__name__}: {bug}")
        console.say("this is a bug in gemmaq; GEMMAQ_DEBUG=1 shows where")
        sys.exit(1)
