"""Processes that share a calibration agree on it, or are refused."""

from __future__ import annotations

import pytest

from damage import small_model
from fake_peers import together
from gemmaq.calibration.resources import Resources, agree
from gemmaq.errors import UsageError
from gemmaq.inference.peers import ALONE, Peers
from gemmaq.sources.open import open_source

pytestmark = pytest.mark.usefixtures("torch_and_transformers")


def test_one_process_agrees_with_itself(checkpoint, tokens):
    agree(ALONE, checkpoint, tokens, "anything")
    assert Resources(None, 1).peers is ALONE


@pytest.mark.parametrize("what", ["source", "text", "set of options"])
def test_a_process_that_differs_is_named(checkpoint, tokens, tmp_path, what):
    other = open_source(str(small_model(tmp_path / "other", seed=6))) if what == "source" else checkpoint

    def run(peers: Peers) -> str:
        odd = peers.rank == 1
        try:
            agree(
                peers,
                other if odd else checkpoint,
                tokens[:-1] if odd and what == "text" else tokens,
                "b" if odd and what == "set of options" else "a",
            )
        except UsageError as error:
            return error.message
        return ""

    first, *others = together(3, run)
    assert first.startswith(f"process 1 has another {what} than process 0")
    assert others == [first, first]
