"""A small Gemma 3 with the first pieces of the real tokenizer, and short trainings of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from gemmaq.checkpoint.rows import read_rows, values_of
from gemmaq.files.span import Reader
from gemmaq.models.gemma3.config import pattern
from gemmaq.models.samples import SAMPLE
from gemmaq.sources.open import open_source
from inprocess import run
from synthetic import TINY, write_checkpoint

SMALL = replace(TINY, vocab_size=4096, num_hidden_layers=2, layer_pattern=pattern(2, 2))


@dataclass(frozen=True)
class Trained:
    """A run of `gemmaq qat`."""

    folder: Path
    record: dict[str, Any]


@cache
def tokenizer(size: int) -> Mapping[str, bytes]:
    """Gemma's tokenizer with its first pieces only: bytes, and the merges that stay among them."""
    files = _whole_tokenizer()
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


@cache
def _whole_tokenizer() -> Mapping[str, bytes]:
    """Files of Gemma's tokenizer, which take seconds to make."""
    from gemmaq.checkpoint.tokenizer_files import to_files

    sample = open_source(SAMPLE.source)
    return to_files(sample.tokenizer, sample.family.vocabulary, SMALL.max_position_embeddings)


def write_model(folder: Path) -> Path:
    """The model as a Hugging Face folder."""
    write_checkpoint(folder, SMALL)
    for name, content in tokenizer(SMALL.vocab_size).items():
        (folder / name).write_bytes(content)
    return folder


def words(source: Path, text: Path, out: Path, *more: object) -> list[str]:
    """The command line of a short training in f32, the same whatever the machine."""
    usual = {"--learning-rate": "1e-4", "--dtype": "f32", "--context": 64, "--threads": 1, "--steps": 20}
    options = [word for flag, value in usual.items() if flag not in more for word in (flag, value)]
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


def in_process(source: Path, text: Path, out: Path, *more: object) -> dict[str, Any]:
    """A training of six steps in this process, and its record."""
    run(*words(source, text, out, *(() if "--steps" in more else ("--steps", 6)), *more), "--json")
    return record_of(out)


def codes(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Codes and scales of the matrices of the layers in a GGUF file."""
    result = {}
    with Reader() as reader:
        for name, tensor in open_source(str(path)).matrices.items():
            values = values_of(tensor, read_rows(tensor, 0, tensor.rows, reader, bytearray()))
            result[name] = values.codes, values.scales
    return result
