"""Run a script of a runtime in a process of its own: what native code prints, and how it ends, stays in there.

The script reads a job from stdin, a JSON object:

    model    GGUF file (the first shard) or folder
    ids      token ids that are to be continued
    text     the same as text, special tokens included
    tokens   number of tokens to decode, each the likeliest
    context  tokens that the runtime needs room for
    threads  threads to compute with
    program  path of the runtime's program, or null

The last line of its stdout is the answer: `version` of the runtime, `prompt` (ids that its own tokenizer makes of
`text`), `tokens` (ids decoded) and `logprobs` (natural logarithm of the probability of each, null where unknown).
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from gemmaq.errors import VerificationError
from gemmaq.verify.engines import Installed

TIMEOUT = 1800.0
"""Seconds after which a runtime is ended: a large model on a slow disk takes minutes to load."""
_LINES = 3
_WIDTH = 300
_SETTINGS = {
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What a runtime made of a job.

    Attributes:
        version: Version of the runtime.
        prompt: Token ids that its own tokenizer makes of the prompt.
        tokens: Token ids decoded.
        logprobs: Natural logarithm of the probability of each, None where the runtime does not say it.
    """

    version: str
    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    logprobs: tuple[float | None, ...]


def ask(runtime: Installed, job: dict[str, Any], timeout: float = TIMEOUT) -> Answer:
    """Have a runtime do a job.

    Args:
        runtime: The runtime.
        job: All fields but `program`.
        timeout: Seconds after which the process and all that it started are ended.

    Raises:
        VerificationError: The runtime does not load the model, crashed, took too long, or answered what is no answer.
    """
    script = Path(__file__).parent / runtime.engine.script
    program = None if runtime.program is None else str(runtime.program)
    output = _output([str(runtime.python), "-P", str(script)], {**job, "program": program}, runtime, timeout)
    try:
        found = json.loads(output.splitlines()[-1])
        answer = Answer(
            str(found["version"]),
            tuple(int(token) for token in found["prompt"]),
            tuple(int(token) for token in found["tokens"]),
            tuple(None if value is None else float(value) for value in found["logprobs"]),
        )
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise VerificationError(f"{runtime.engine.name} answered what gemmaq does not understand") from error
    known = [value for value in answer.logprobs if value is not None]
    if not len(answer.tokens) == len(answer.logprobs) == job["tokens"] or not all(map(math.isfinite, known)):
        raise VerificationError(f"{runtime.engine.name} did not decode {job['tokens']} tokens with their probabilities")
    return answer


def _output(command: Sequence[str], job: dict[str, Any], runtime: Installed, timeout: float) -> str:
    """What the command prints; errors as in `ask`."""
    environment = {**os.environ, **_SETTINGS}
    if runtime.python != Path(sys.executable):  # paths to packages are those of this Python
        environment = {name: value for name, value in environment.items() if not name.startswith("PYTHON")}
    name, code = runtime.engine.name, None
    with TemporaryFile() as given, TemporaryFile() as output, TemporaryFile() as log:
        given.write(json.dumps(job).encode())
        given.seek(0)
        process = subprocess.Popen(  # files, not pipes: what the script started may outlive it and hold a pipe open
            command, stdin=given, stdout=output, stderr=log, env=environment, start_new_session=True
        )
        with suppress(subprocess.TimeoutExpired):
            try:
                code = process.wait(timeout)
            finally:
                _end(process)
                process.wait()
        said, printed = _tail(_text(log)), _text(output)
    if code is None:
        raise VerificationError(f"{name} had not decoded {job['tokens']} tokens after {timeout:g} seconds{said}")
    if code < 0:
        raise VerificationError(f"{name} crashed ({signal.Signals(-code).name}){said}")
    if code:
        raise VerificationError(f"{name} failed{said}")
    return printed


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _tail(log: str) -> str:
    """The end of a log, to be put behind a sentence, without the indented lines of a traceback."""
    lines = [line.strip() for line in log.splitlines() if line.strip() and not line.startswith((" ", "Traceback"))]
    lines = lines[-_LINES:]
    return f": {' / '.join(lines)[-_WIDTH:]}" if lines else ""
