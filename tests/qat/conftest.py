"""A small Gemma 3 with the real tokenizer, a text, and one training that several tests look at."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from gemmaq.gemma.config import pattern
from gemmaq.sources import SAMPLE, open_source
from synthetic import TINY, write_checkpoint

SMALL = replace(TINY, vocab_size=4096, num_hidden_layers=2, layer_pattern=pattern(2, 2))


@dataclass(frozen=True)
class Trained:
    """A run of `gemmaq qat`."""

    folder: Path
    record: dict[str, Any]


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_checkpoint(tmp_path_factory.mktemp("qat") / "gemma-3-small", SMALL)
    for name, content in _tokenizer(SMALL.vocab_size).items():
        (folder / name).write_bytes(content)
    return folder


def _tokenizer(size: int) -> dict[str, bytes]:
    """Gemma's tokenizer with its first pieces only: bytes, and the merges that stay among them."""
    from gemmaq.checkpoint.tokenizer import to_files

    files = to_files(open_source(SAMPLE).tokenizer, SMALL.max_position_embeddings)
    whole = json.loads(files["tokenizer.json"])
    vocabulary = {piece: at for piece, at in whole["model"]["vocab"].items() if at < size}
    whole["model"]["vocab"] = vocabulary
    whole["model"]["merges"] = [
        merge for merge in whole["model"]["merges"] if all(p in vocabulary for p in (*merge, "".join(merge)))
    ]
    whole["added_tokens"] = [token for token in whole["added_tokens"] if token["id"] < size]
    return {
        "tokenizer.json": json.dumps(whole).encode(),
        "tokenizer.model": files["tokenizer.model"],
        "tokenizer_config.json": files["tokenizer_config.json"],
        "special_tokens_map.json": files["special_tokens_map.json"],
    }


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few thousand tokens of the language's own documentation."""
    from pydoc_data.topics import topics

    path = tmp_path_factory.mktemp("text") / "topics.txt"
    path.write_text("\n\n".join(topics[name] for name in sorted(topics))[:24_000])
    return path


def words(source: Path, text: Path, out: Path, *more: object) -> list[str]:
    """The command line of a short training in f32, the same whatever the machine."""
    options = ["--learning-rate", "1e-4", "--dtype", "f32", "--context", 64, "--threads", 1, "--steps", 20]
    return [str(word) for word in ("qat", source, "--text", text, "-o", out, *options, *more)]


def call(arguments: Sequence[str], ranks: int = 1) -> subprocess.CompletedProcess[str]:
    """Run it in a process of its own, or in several."""
    several = ["-m", "torch.distributed.run", "--nproc-per-node", str(ranks)] if ranks > 1 else []
    command = [sys.executable, *several, "-m", "gemmaq", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment())


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def record_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "qat.json").read_text())
    return found


@pytest.fixture(scope="session")
def trained(source: Path, text: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Twenty steps without a break."""
    folder = tmp_path_factory.mktemp("trained") / "gemma-3-small-qat"
    done = call(words(source, text, folder, "--train-norms"))
    assert done.returncode == 0, done.stderr
    return Trained(folder, record_of(folder))
