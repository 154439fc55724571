"""llama.cpp's server for a few questions, in a process of its own.

The server takes over signals, runs in threads that Python does not know, and if it aborts, so does its process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import llama_arguments

Request = tuple[str, dict[str, Any]]
"""The path of a request and its body."""


def job(text: Path, *requests: Request, **settings: Any) -> dict[str, Any]:
    """Requests to a server of a GGUF file; settings are fields of llama.cpp's `common_params` such as `mmproj.path`."""
    return {"settings": {"model.path": str(text), **settings}, "requests": requests}


def line(words: Sequence[str], *requests: Request) -> dict[str, Any]:
    """Requests to the server that options of llama-server's command line start."""
    return {"settings": {}, "words": words, "requests": requests}


def ask(*jobs: dict[str, Any]) -> list[dict[str, Any]]:
    """Answers to all requests of all jobs."""
    answers: list[dict[str, Any]] = json.loads(_done(jobs).stdout.splitlines()[-1])
    return answers


def log(job: dict[str, Any]) -> str:
    """All that llama.cpp says of a job."""
    done = _done([{**job, "settings": {**job["settings"], "verbosity": 10}}])
    return done.stdout + done.stderr


def _done(jobs: Sequence[dict[str, Any]]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, __file__],
        input=json.dumps(jobs),
        env={**os.environ, "LLAMA_MEDIA_MARKER": "<__media__>"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def serve(settings: dict[str, Any], words: Sequence[str] | None = None) -> Any:
    """A server, which runs as long as what is returned is kept."""
    import xllamacpp

    params = xllamacpp.CommonParams() if words is None else llama_arguments.params_of(words)
    defaults = {"n_ctx": 512, "n_parallel": 1, "warmup": False, "mmproj_use_gpu": False}
    threads = {"cpuparams.n_threads": 1, "cpuparams_batch.n_threads": 1}
    for path, value in {**defaults, **threads, **settings}.items():
        *parents, field = path.split(".")
        owner = params
        for parent in parents:
            owner = getattr(owner, parent)
        if path == "speculative.types":
            value = [getattr(xllamacpp.common_speculative_type, name) for name in value]
        setattr(owner, field, value)
    return xllamacpp.Server(params)


def send(address: str, path: str, body: dict[str, Any]) -> Any:
    """xllamacpp's own methods take prompts that are plain text only, so servers are asked over HTTP."""
    request = urllib.request.Request(address + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as response:
        return json.load(response)


if __name__ == "__main__":
    answers, servers = [], []
    for one in json.load(sys.stdin):
        servers.append(serve(one["settings"], one.get("words")))
        answers += [send(servers[-1].listening_address, *request) for request in one["requests"]]
    print("\n" + json.dumps(answers), flush=True)
    os._exit(0)  # what goes wrong while servers shut down is of no interest to a test
