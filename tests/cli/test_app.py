"""What scripts rely on: every command and flag, and an exit code for every way to fail."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
import typer

from gemmaq import __version__
from gemmaq.cli.app import app
from gemmaq.errors import (
    AuthError,
    GemmaqError,
    InputError,
    NetworkError,
    NotFoundError,
    OutputError,
    UsageError,
    VerificationError,
)
from gemmaq.sources import open as sources
from inprocess import run

FLAGS = {
    "pull": """
        --dry-run --exclude --force --include --offline --output -o
    """,
    "inspect": """
        --tensors
    """,
    "convert": """
        --calibration-context --calibration-tokens --damping --device --dry-run --embedding --force
        --imatrix --max-shard-size --method --mmproj --order --output --portable --quant --recipe --scales
        --text --threads --to -o
    """,
    "imatrix": """
        --calibration-context --calibration-tokens --device --dry-run --force --output --text --threads -o
    """,
    "verify": """
        --against --device --imatrix --text --threads
    """,
    "estimate-vram": """
        --context --embedding --engine --flash-attn --force --gpu --kv-type --kv-unified --no-flash-attn
        --no-kv-unified --no-swa-full --no-vision --parallel --plot --published --quant --swa-full --ubatch
        --vision
    """,
    "evaluate": """
        --cache --context --device --dry-run --force --no-cache --reference --report --text --threads
        --tokens
    """,
    "qat": """
        --accumulate --activations --batch --block-wise --checkpoint-activations --clip --context --device
        --dry-run --dtype --force --grid --held-out --learning-rate --minutes --no-dither --output --resume
        --save-minutes --save-steps --seed --start --steps --teacher-samples --text --threads
        --train-embedding --train-norms --vocabulary --warm-up -o
    """,
    "push": """
        --dry-run --private --revision
    """,
    "install": """
        --dest --dry-run --force --model-yaml --name --runtime
    """,
}
"""Flags of every command, once published: none may go. All have --json and -q/--quiet."""


class _Bug(Exception):
    """No error that gemmaq knows."""


def command(name: str) -> click.Command:
    group = typer.main.get_command(app)
    found: click.Command = group.commands[name]  # type: ignore[attr-defined]
    return found


@pytest.mark.parametrize("name", FLAGS)
def test_no_flag_is_ever_lost(name: str) -> None:
    flags = {flag for option in command(name).params for flag in (*option.opts, *option.secondary_opts)}
    assert {*FLAGS[name].split(), "--json", "-q", "--quiet"} <= flags


def test_every_command_is_listed_here() -> None:
    assert list(typer.main.get_command(app).commands) == list(FLAGS)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", FLAGS)
def test_every_option_has_a_help_line(name: str) -> None:
    for option in command(name).params:
        assert getattr(option, "help", None), option.name


def test_the_version() -> None:
    assert run("--version").stdout == f"gemmaq {__version__}\n"


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (UsageError, 2),
        (InputError, 3),
        (AuthError, 4),
        (NotFoundError, 5),
        (NetworkError, 6),
        (OutputError, 7),
        (VerificationError, 8),
    ],
)
def test_every_error_has_its_exit_code(monkeypatch: pytest.MonkeyPatch, kind: type[GemmaqError], code: int) -> None:
    def fail(*_: object, **__: object) -> None:
        raise kind("x.gguf is wrong", "mend it")

    monkeypatch.setattr(sources, "open_source", fail)
    done = run("inspect", "x.gguf", code=code)
    assert "x.gguf is wrong" in done.stderr and "mend it" in done.stderr


def test_a_bug_is_told_from_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*_: object, **__: object) -> None:
        raise _Bug("odd")

    monkeypatch.setattr(sources, "open_source", fail)
    done = run("inspect", tmp_path, code=1)
    assert "_Bug: odd" in done.stderr and "GEMMAQ_DEBUG=1" in done.stderr
    monkeypatch.setenv("GEMMAQ_DEBUG", "1")
    with pytest.raises(_Bug):
        run("inspect", tmp_path, code=1)


def test_ctrl_c(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sources, "open_source", interrupt)
    monkeypatch.setattr("sys.argv", ["gemmaq", "inspect", str(tmp_path)])
    from gemmaq.cli.app import INTERRUPTED, main

    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == INTERRUPTED == 130


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["inspect"], ["inspect", "a", "b"], ["inspect", "a", "--nonsense"]]
)
def test_a_wrong_command_line_is_a_usage_error(arguments: list[str]) -> None:
    done = run(*arguments, code=2)
    assert done.stdout == ""
