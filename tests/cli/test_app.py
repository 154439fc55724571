"""The command line as a whole: its help, mistakes on it, and output that cannot be written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from gemmaq.cli.app import COMMANDS, app, main
from gemmaq.encodings import listed
from gemmaq.methods import METHODS
from gemmaq.planning.containers import CONTAINERS
from gemmaq.planning.recipe import TYPES
from inprocess import run

WIDTH = 80


def help_of(*command: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    return run(*command, "--help").stdout


def test_the_list_of_commands_shows_whole_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = help_of(monkeypatch=monkeypatch)
    lines = {words[0]: words for line in shown.splitlines() if len(words := line.split(maxsplit=1)) == 2}
    for name in COMMANDS:
        summary = lines[name][1]
        assert summary.endswith(".") and not summary.endswith("..."), f"{name} is cut: {summary}"
    assert all(len(line) <= WIDTH for line in shown.splitlines())


@pytest.mark.parametrize("command", COMMANDS)
def test_the_list_of_commands_says_what_their_own_help_says(command: str) -> None:
    name = command.replace("-", "_")
    function = getattr(import_module(f"gemmaq.cli.{name}"), name)
    assert function.__doc__.splitlines()[0] == COMMANDS[command]


def test_the_list_of_commands_imports_none_of_them() -> None:
    code = "import sys, gemmaq.cli.app; print([m for m in sys.modules if m.startswith('gemmaq.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not [name for name in COMMANDS if f"gemmaq.cli.{name.replace('-', '_')}'" in done.stdout]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_no_python_types(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = help_of(command, monkeypatch=monkeypatch)
    assert not re.search(r"[{}<]|x>=|\[(default|required|env)", shown), shown
    assert "--json" in shown and "-q, --quiet" in shown
    assert all(len(line) <= WIDTH for line in shown.splitlines())


def test_help_of_convert_names_every_type_and_method(monkeypatch: pytest.MonkeyPatch) -> None:
    text = " ".join(help_of("convert", monkeypatch=monkeypatch).split())
    entries = listed(TYPES)
    assert all(entry in text for entry in entries)
    assert {*(e for e in entries if " " not in e), *METHODS, *CONTAINERS, "auto"} <= set(re.findall(r"[\w-]+", text))


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["verify"], "ARTIFACT is missing", "verify --help"),
        (["verify", "x", "--faster"], "there is no option --faster", "verify --help"),
        (["verfy", "x"], "there is no command verfy", "did you mean verify?"),
        (["verify", "x", "y"], "unexpected argument: y", "verify --help"),
        (["verify", "x", "--prompt"], "--prompt needs a value", "leave it out"),
        (["verify", "x", "--run=yes"], "--run takes no value", "leave it out"),
        (["verify", "x", "--treads", "2"], "there is no option --treads", "did you mean --threads?"),
        (["verify", "x", "--threads", "0"], "--threads '0' is not a whole number from 1 on", "verify --help"),
        (["verify", "x", "--threads", "many"], "'many' is not a whole number", "verify --help"),
        (["verify", "x", "--text", "y"], "--text needs --against SOURCE", None),
    ],
)
def test_mistakes_are_answered_in_one_style(arguments: list[str], message: str, hint: str | None) -> None:
    first, *rest = run(*arguments, code=2).stderr.splitlines()
    assert first.startswith("error: ") and message in first
    assert [line.startswith("  try: ") and line.endswith(hint or "") for line in rest] == ([True] if hint else [])


def single(name: str) -> list[str]:
    """The options of a command that take one value."""
    group: Any = get_command(app)
    options = [parameter for parameter in group.get_command(None, name).params if parameter.param_type_name == "option"]
    return [max(option.opts, key=len) for option in options if not option.is_flag and not option.multiple]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_second_value_for_an_option_that_takes_one_is_refused(command: str) -> None:
    """Even the same one again, however it is spelled."""
    for option in single(command):
        message = run(command, option, "1", f"{option}=1", "there", code=2).stderr
        assert message == f"error: {option} is given 2 times, and takes one value\n  try: give it once\n"


def test_short_and_long_names_are_one_option_and_others_can_be_repeated(tiny: Path, tmp_path: Path) -> None:
    twice = ("-o", tmp_path / "a", "--output", tmp_path / "b")
    assert "--output is given 2 times" in run("convert", tiny, *twice, code=2).stderr
    run("convert", tiny, "--to", "gguf", "--to", "mlx", "--dry-run", "--dry-run", "-q", "-q")


def test_without_a_command_the_help_is_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["gemmaq"])
    with pytest.raises(SystemExit) as ended:
        main()
    shown = capsys.readouterr()
    assert ended.value.code == 2 and shown.out == "" and "estimate-vram" in shown.err


def program(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gemmaq", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=False)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [["--version"], ["estimate-vram", "270m", "--gpu", "4090"]])
def test_a_full_stdout_is_no_bug(arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "gemmaq", *arguments]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 7
    assert done.stderr == "error: standard output cannot be written: No space left on device\n"


def test_a_terminal_without_unicode_is_no_bug() -> None:
    done = program("estimate-vram", "270m", "--gpu", "4090", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert done.returncode == 0 and "bug" not in done.stderr, done.stderr
    assert done.stdout.isascii() and "270m" in done.stdout


def test_json_is_escaped_where_stdout_has_no_unicode(tmp_path: Path) -> None:
    missing = tmp_path / "mödel"
    missing.mkdir()
    done = program("verify", str(missing), PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert done.returncode == 5 and "m?del holds no artifact" in done.stderr
