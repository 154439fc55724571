"""Command lines that cards tell users to type, read by the programs' own parsers of options."""

from __future__ import annotations

import argparse
import shlex
import subprocess
from collections.abc import Callable
from importlib import import_module
from typing import Any
from unittest.mock import patch

import llama_arguments
import ollama_rules
import oracles

Require = Callable[[bool, str], None]

_VLLM = """
import sys
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser
make_arg_parser(FlexibleArgumentParser()).parse_args(sys.argv[1:])
"""


def check(line: str, require: Require) -> None:
    """Fail if a program would not understand the line; skip where the program is missing."""
    program, *words = shlex.split(line)
    {
        "llama-server": _llama_server,
        "mlx_lm.chat": _argparse("mlx_lm.chat"),
        "mlx_vlm.chat": _argparse("mlx_vlm.chat"),
        "transformers": _transformers,
        "vllm": _vllm,
        "ollama": _ollama,
        "gemmaq": _gemmaq,
        "lms": _lms,
        "python": _python,
    }[program](words, require)


def _llama_server(words: list[str], require: Require) -> None:
    """Without a Hub at hand."""
    oracles.need(require, "xllamacpp")
    llama_arguments.read(["-m" if word == "-hf" else word for word in words])


def _argparse(module: str) -> Callable[[list[str], Require], None]:
    """A program that builds its parser in `main`, stopped once the options are read."""

    class Parsed(Exception):
        pass

    def run(words: list[str], require: Require) -> None:
        oracles.need(require, module.partition(".")[0])
        parse = argparse.ArgumentParser.parse_args

        def stop(parser: argparse.ArgumentParser, *_: Any) -> None:
            parse(parser, words)
            raise Parsed

        with patch.object(argparse.ArgumentParser, "parse_args", stop):
            try:
                import_module(module).main()
            except Parsed:
                return
        raise AssertionError(f"{module} read no options")

    return run


def _transformers(words: list[str], require: Require) -> None:
    oracles.need(require, "transformers")
    app = import_module("transformers.cli.transformers").app
    app.commands[words[0]].make_context(words[0], words[1:])


def _vllm(words: list[str], require: Require) -> None:
    oracles.need_vllm(require)
    assert words[0] == "serve"
    done = subprocess.run([str(oracles.vllm_python()), "-P", "-c", _VLLM, *words[1:]], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-500:]


def _ollama(words: list[str], require: Require) -> None:
    command, name, *more = words
    assert command in ("create", "run", "pull") and ollama_rules.is_name(name)
    assert more == (["-f", "Modelfile"] if command == "create" else [])


def _gemmaq(words: list[str], require: Require) -> None:
    from gemmaq.runtimes import find

    assert words[:3] == ["install", ".", "--runtime"] and find(words[3])


def _lms(words: list[str], require: Require) -> None:
    """`lms get`, by its source of August 2026: the address of a repository, and a type after an @."""
    command, (address, _, kind) = words[0], words[1].partition("@")
    owner, repo = address.removeprefix("https://huggingface.co/").split("/")
    assert command == "get" and owner and repo and kind and len(words) == 2


def _python(words: list[str], require: Require) -> None:
    assert words[0] == "-c"
    compile(words[1], "card", "exec")
