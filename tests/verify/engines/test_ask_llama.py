"""llama.cpp decodes what gemmaq computes: by its Python binding, and by the program, whose options it reads itself."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import llama_arguments
import oracles
from gemmaq.errors import VerificationError
from gemmaq.sources.open import open_source
from gemmaq.verify import engines
from gemmaq.verify.engines import process
from gemmaq.verify.running import Outcome

pytestmark = pytest.mark.oracle

SERVER = """#!{python}
import sys
sys.path.insert(0, {support!r})
import llama_server
server = llama_server.serve({{}}, sys.argv[1:])
sys.stdin.close()
import time
print("listening", server.listening_address, flush=True)
while True:
    time.sleep(1)
"""
"""llama-server as the binding makes it: the words of its command line are parsed by llama.cpp."""


def test_the_binding_decodes(
    runs: dict[str, Path], judged: Callable[..., Outcome], require: Callable[[bool, str], None]
) -> None:
    oracles.need(require, "xllamacpp", "torch", "transformers")
    outcome = judged(runs["gguf"], "xllamacpp")
    assert outcome.agreed, outcome.problems
    assert outcome.version and len(outcome.tokens) == 8


def test_the_program_decodes(
    runs: dict[str, Path],
    judged: Callable[..., Outcome],
    require: Callable[[bool, str], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    oracles.need(require, "xllamacpp", "torch", "transformers")
    path = tmp_path / "llama-server"
    path.write_text(SERVER.format(python=sys.executable, support=str(Path(llama_arguments.__file__).parent)))
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    outcome = judged(runs["gguf"], "llama-server")
    assert outcome.agreed, outcome.problems
    assert outcome.tokens == judged(runs["gguf"], "xllamacpp").tokens


def test_a_program_that_ends_is_not_waited_for(runs: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "llama-server"
    path.write_text("#!/bin/sh\necho unknown model architecture >&2\nexit 1\n")
    path.chmod(0o755)
    runtime = engines.Installed(engines.ENGINES["llama-server"], Path(sys.executable), path)
    job = {"model": "x", "ids": [2], "text": "<bos>", "tokens": 2, "context": 64, "threads": 1}
    with pytest.raises(VerificationError, match=r"unknown model architecture.*llama-server ended with code 1"):
        process.ask(runtime, job, timeout=60)


def test_a_model_that_the_binding_does_not_load_is_a_problem(
    runs: dict[str, Path], require: Callable[[bool, str], None], tmp_path: Path
) -> None:
    oracles.need(require, "xllamacpp")
    (broken := tmp_path / "broken.gguf").write_bytes(next(runs["gguf"].glob("*.gguf")).read_bytes()[:5000])
    runtime = engines.choose(open_source(str(runs["gguf"])), "xllamacpp")
    job = {"model": str(broken), "ids": [2], "text": "<bos>", "tokens": 2, "context": 64, "threads": 1}
    with pytest.raises(VerificationError, match=r"xllamacpp (failed|crashed)"):
        process.ask(runtime, job, timeout=60)
