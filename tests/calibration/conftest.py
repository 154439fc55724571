"""A small model and a text to calibrate it on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from calibrating import CONTEXT
from damage import SMALL, small_model
from gemmaq.checkpoint import Checkpoint
from gemmaq.inference.documents import Text, read
from gemmaq.sources.open import open_source
from oracles import need


@pytest.fixture(scope="module")
def torch_and_transformers(require: Callable[[bool, str], None]) -> None:
    need(require, "torch", "transformers")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("model") / "gemma-3-tiny", seed=5)


@pytest.fixture(scope="module")
def checkpoint(model: Path) -> Checkpoint:
    return open_source(str(model))


@pytest.fixture(scope="module")
def tokens() -> np.ndarray:
    return np.random.default_rng(0).integers(0, SMALL.vocab_size, (5, CONTEXT))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text of bytes in some order."""
    path = tmp_path_factory.mktemp("text") / "letters.txt"
    path.write_text("".join(chr(32 + (n * n * 7 + n // 13) % 90) for n in range(900)))
    return path


@pytest.fixture(scope="module")
def text(file: Path) -> Text:
    return read([file])
