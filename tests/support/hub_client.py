"""What tests need to ask the fake Hub: a few files, plain HTTP, and huggingface_hub in a process of its own."""

from __future__ import annotations

import hashlib
import http.client
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fake_hub import FakeHub

REPO = "google/gemma-3-tiny"
CLIENT = """
import json, sys
import huggingface_hub as hf
from pathlib import Path
api = hf.HfApi()
def name_of(error):
    return type(error).__name__
def attempt(call):
    try:
        return str(call())
    except Exception as error:
        return name_of(error)
"""


def noise(size: int, seed: int) -> bytes:
    return hashlib.shake_256(b"%d" % seed).digest(size)


FILES: dict[str, bytes] = {
    ".gitattributes": b"*.safetensors filter=lfs\n",
    "README.md": b"---\nlicense: gemma\n---\n# Tiny\n",
    "config.json": b'{"model_type": "gemma3_text"}\n',
    "empty.txt": b"",
    "folder/deep/name with blank.txt": b"hello\n",
    "model-00001-of-00002.safetensors": noise(300_000, 1),
    "model-00002-of-00002.safetensors": noise(200_000, 2),
    "tokenizer.json": b'{"version": "1.0"}',
}
SHARD = "model-00001-of-00002.safetensors"


def write_files(folder: Path) -> Path:
    """`FILES` on disk."""
    for name, data in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


@dataclass
class Got:
    """What came over a connection, to its end."""

    status: int
    headers: dict[str, str]
    body: bytes
    error: str | None

    @property
    def told(self) -> int:
        return int(self.headers["content-length"])


def get(url: str, timeout: float = 5, **headers: str) -> Got:
    """One request, with no client's kindness."""
    host = urlsplit(url)
    connection = http.client.HTTPConnection(host.netloc, timeout=timeout)
    body, error = b"", None
    try:
        names = {key.replace("_", "-"): value for key, value in headers.items()}
        connection.request("GET", url[url.index(host.path) :], headers=names)
        response = connection.getresponse()
        try:
            while data := response.read(10_000):
                body += data
        except (OSError, http.client.HTTPException) as failed:
            error = type(failed).__name__
        return Got(response.status, {key.lower(): value for key, value in response.getheaders()}, body, error)
    except (OSError, http.client.HTTPException) as failed:
        return Got(0, {}, b"", type(failed).__name__)
    finally:
        connection.close()


def shard_url(hub: FakeHub) -> str:
    """The signed address of the first shard."""
    return get(f"{hub.endpoint}/{REPO}/resolve/main/{SHARD}").headers["location"]


def ask_client(hub: FakeHub, home: Path, code: str, token: str | None = None, *arguments: object) -> Any:
    """Run Python with huggingface_hub as `hf` and an `HfApi` as `api`; returns what it leaves in `result`."""
    program = f"{CLIENT}\n{code}\nprint(json.dumps(result))"
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=hub.env(home, token), timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
