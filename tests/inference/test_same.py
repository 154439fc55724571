"""Facts that processes must share, one difference told at a time."""

from __future__ import annotations

import numpy as np
import pytest

from fake_peers import together
from gemmaq import __version__
from gemmaq.errors import UsageError
from gemmaq.inference import same
from gemmaq.inference.peers import ALONE, Peers


def test_equal_facts_pass() -> None:
    pytest.importorskip("torch")
    same.check(ALONE, {"text": "a"})
    assert together(2, lambda peers: same.check(peers, {"text": "a"})) == [None, None]


def test_the_first_difference_is_told_with_short_values() -> None:
    pytest.importorskip("torch")

    def run(peers: Peers) -> str:
        with pytest.raises(UsageError) as caught:
            same.check(peers, {"version": f"1.{peers.rank}", "text": f"{peers.rank}" * 64})
        return caught.value.message

    assert set(together(3, run)) == {"process 1 has another version than process 0: 1.1, not 1.0"}


def test_tokens_of_another_shape_are_others() -> None:
    tokens = np.arange(12).reshape(3, 4)
    assert same.of_tokens(tokens) == same.of_tokens(tokens.astype(np.int32))
    assert same.of_tokens(tokens) != same.of_tokens(tokens.reshape(4, 3))


def test_software_tells_the_versions() -> None:
    pytest.importorskip("transformers")
    assert same.software()["version of gemmaq"] == __version__
