"""Have llama.cpp's server decode: `python ask_llama.py < job`, in a process of its own; `process` has the forms.

The server is that of the binding xllamacpp, or the program `llama-server`. Every token is a request of its own, for the
one token after all before it: so the tokens behind an end of turn are to be had, too. The server keeps its cache, so
each request computes one token.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import Any


def start_binding(job: dict[str, Any]) -> tuple[str, Any]:
    """Start xllamacpp's server: its address, and what keeps it running."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.n_parallel, params.warmup = job["model"], job["context"], 1, False
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = job["threads"]
    server = xllamacpp.Server(params)
    return server.listening_address, server


def start_program(job: dict[str, Any]) -> tuple[str, Any]:
    """Start `llama-server`: its address, and its process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = {"-m": job["model"], "-c": job["context"], "-np": 1, "-t": job["threads"]}
    options |= {"--host": "127.0.0.1", "--port": port}
    words = [job["program"], *(str(word) for option in options.items() for word in option)]
    server = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=sys.stderr)
    address = f"http://127.0.0.1:{port}"
    while True:
        try:
            send(address, "/health")
            return address, server
        except OSError:  # not listening yet, or loading
            if server.poll() is not None:
                raise RuntimeError(f"llama-server ended with code {server.returncode}") from None
            time.sleep(0.1)


def send(address: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """The server's answer to a request."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address + path, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        if path != "/health":
            raise RuntimeError(f"the server refuses {path}: {error.read().decode(errors='replace')}") from None
        raise


def version(job: dict[str, Any], address: str) -> str:
    """Version of the binding, or the build of the program."""
    if job["program"] is None:
        from importlib.metadata import version

        return version("xllamacpp")
    return str(send(address, "/props").get("build_info", "unknown"))


def decode(address: str, job: dict[str, Any]) -> dict[str, Any]:
    """The tokens that the server finds the likeliest, one after the other."""
    ids: list[int] = list(job["ids"])
    logprobs: list[float | None] = []
    wish = {"n_predict": 1, "temperature": 0, "n_probs": 1, "return_tokens": True, "cache_prompt": True}
    for _ in range(job["tokens"]):
        made = send(address, "/completion", {"prompt": ids, **wish})
        scores = made.get("completion_probabilities")  # the server leaves it out for part of a character
        ids.append(scores[0]["id"] if scores else made["tokens"][0])
        logprobs.append(scores[0]["logprob"] if scores else None)
    text = {"content": job["text"], "add_special": False, "parse_special": True}
    return {
        "version": version(job, address),
        "prompt": send(address, "/tokenize", text)["tokens"],
        "tokens": ids[len(job["ids"]) :],
        "logprobs": logprobs,
    }


def main() -> None:
    """Do the job on stdin; its answer is the last line of stdout."""
    job = json.load(sys.stdin)
    code = 0
    try:
        address, _server = (start_binding if job["program"] is None else start_program)(job)
        print("\n" + json.dumps(decode(address, job)), flush=True)
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        code = 1
    os._exit(code)  # what the binding does while it shuts down says nothing of the model; a program is ended by gemmaq


if __name__ == "__main__":
    main()
