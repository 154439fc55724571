"""Help in one style: whole sentences, the usual first, defaults and variables in words, no types of Python."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
from typer.main import get_command

from gemmaq.cli.app import COMMANDS, app
from gemmaq.cli.examples import EXAMPLES, FIRST, START
from inprocess import run

NUMBERS = (int, float)


def shown(*command: str, monkeypatch: pytest.MonkeyPatch, columns: int = 80) -> str:
    monkeypatch.setenv("COLUMNS", str(columns))
    return run(*command, "--help").stdout


def params(command: str) -> list[Any]:
    group: Any = get_command(app)
    return list(group.get_command(None, command).params)


def test_the_commands_that_most_people_need_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(monkeypatch=monkeypatch)
    places = [text.index(f"\n  {name} ") for name in (*START, *(name for name in COMMANDS if name not in START))]
    assert places == sorted(places)
    assert all(line in text for _, line in EXAMPLES[""])


@pytest.mark.parametrize("columns", [60, 80, 120])
@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_is_cut(command: str, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(command, monkeypatch=monkeypatch, columns=columns)
    assert "…" not in text and ".." not in text.replace("[MODEL]...", "").replace("MODEL...", "").replace("mtp-...", "")
    assert all(f"  {line}\n" in text for _, line in EXAMPLES[command])


@pytest.mark.parametrize("command", FIRST)
def test_options_that_most_people_need_come_first(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    usual, _, others = shown(command, monkeypatch=monkeypatch).partition("Other options:")
    for name in FIRST[command]:
        assert name in usual and f"\n  {name} " not in others


def test_defaults_variables_and_what_has_to_be_given_are_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    text = " ".join(shown("estimate-vram", monkeypatch=monkeypatch).split())
    assert "Default: llama.cpp." in text and "Default: --flash-attn." in text
    assert "Variable: GEMMAQ_DEVICE." in " ".join(shown("verify", monkeypatch=monkeypatch).split())
    assert "Has to be given." in " ".join(shown("install", monkeypatch=monkeypatch).split())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_parameter_says_what_it_is_for(command: str) -> None:
    for param in params(command):
        assert param.help or "--help" in param.opts, param.opts
        if not getattr(param, "is_flag", False):
            assert param.metavar and not set(param.metavar) & set("<>{}"), param.opts


@pytest.mark.parametrize("command", COMMANDS)
def test_every_number_is_refused_in_our_words(command: str) -> None:
    """Of the words of a library only the kind is known: they change with its version."""
    numbers = [p for p in params(command) if getattr(p, "metavar", None) in ("N", "X", "M", "SHARE") and not p.multiple]
    for param in numbers:
        option = max(param.opts, key=len)
        others = {"install": ("--runtime", "ollama"), "qat": ("--text", "x")}.get(command, ())
        words = run(command, "a", option, "nonsense", *others, code=2).stderr
        assert words.startswith(f"error: {option} 'nonsense' is "), words


@pytest.mark.parametrize(
    ("words", "completed"),
    [("gemmaq con", ["convert"]), ("gemmaq convert --qu", ["--quant", "--quiet"]), ("gemmaq --install", None)],
)
def test_a_shell_completes_commands_and_options(words: str, completed: list[str] | None) -> None:
    code = "import sys; sys.argv[0] = 'gemmaq'; from gemmaq.cli.app import main; main()"
    asked = {"_GEMMAQ_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **asked})
    assert done.returncode == 0 and done.stdout.split() == (completed or ["--install-completion"])


def test_completion_can_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(monkeypatch=monkeypatch)
    assert "--install-completion" in text and "--show-completion" in text
