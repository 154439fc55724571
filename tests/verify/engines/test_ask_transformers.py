"""transformers decodes what gemmaq computes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import oracles
from gemmaq.verify.running import Outcome

pytestmark = [pytest.mark.oracle, pytest.mark.slow]


def test_it_decodes(
    runs: dict[str, Path], judged: Callable[..., Outcome], require: Callable[[bool, str], None]
) -> None:
    oracles.need(require, "compressed_tensors", "torch", "transformers")
    outcome = judged(runs["safetensors"], "transformers")
    assert outcome.agreed, outcome.problems
    assert outcome.version and len(outcome.tokens) == 8
