"""Processes that share a calibration agree on it, or are refused."""

from __future__ import annotations

import pytest

from damage import small_model
from fake_peers import together
from gemmaq import __version__
from gemmaq.calibration.resources import Resources, agree
from gemmaq.errors import UsageError
from gemmaq.inference.peers import Peers
from gemmaq.sources.open import open_source

pytestmark = pytest.mark.usefixtures("torch_and_transformers")


def test_one_process_agrees_with_itself(checkpoint, tokens):
    assert agree(Resources(None, 1), checkpoint, tokens, "anything") == {}


def test_one_process_that_keeps_what_is_done_knows_what_it_depends_on(checkpoint, tokens, tmp_path):
    keeping = Resources(None, 1, work=tmp_path)
    known = agree(keeping, checkpoint, tokens, "anything")
    assert known["set of options"] == "anything" and known["version of gemmaq"] == __version__
    assert agree(keeping, checkpoint, tokens[:-1], "anything")["text"] != known["text"]


@pytest.mark.parametrize("what", ["source", "text", "set of options"])
def test_a_process_that_differs_is_named(checkpoint, tokens, tmp_path, what):
    other = open_source(str(small_model(tmp_path / "other", seed=6))) if what == "source" else checkpoint

    def run(peers: Peers) -> str:
        odd = peers.rank == 1
        try:
            agree(
                Resources(None, 1, peers),
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
