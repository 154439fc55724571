"""Two tiny models to compare, and tokens to compare them on."""

from __future__ import annotations

import numpy as np
import pytest

from gemmaq.evaluate.chunks import Chunks
from gemmaq.sources.open import open_source
from synthetic import TINY, write_checkpoint


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory):
    """Two tiny models of different weights."""
    folder = tmp_path_factory.mktemp("pair")
    made = [write_checkpoint(folder / f"gemma-3-{seed}", TINY, seed=seed) for seed in (1, 2)]
    return [open_source(str(path)) for path in made]


@pytest.fixture(scope="module")
def some() -> Chunks:
    """Chunks of tokens that mean nothing."""
    tokens = np.random.default_rng(3).integers(0, TINY.vocab_size, (7, 64))
    return Chunks(tokens, 7)
