"""Scores from hidden states, a slab of the vocabulary at a time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from gemmaq.evaluate.head import score
from gemmaq.evaluate.run import last_hidden_states
from gemmaq.inference import device as forward
from gemmaq.inference.decoder import decoder
from gemmaq.progress import ignore
from oracles import need


@pytest.fixture(scope="module", autouse=True)
def _torch(require: Callable[[bool, str], None]) -> None:
    need(require, "torch", "transformers")


def test_the_size_of_slabs_changes_nothing_but_rounding(pair, some):
    def scored(slab):
        with forward.open_device("cpu", 2) as device, decoder(pair[0], device) as a, decoder(pair[1], device) as b:
            hidden = [last_hidden_states(one, some, ignore) for one in (a, b)]
            return score([a, b], hidden, some.targets, progress=ignore, slab=slab)

    whole = scored(4096)
    for slab in (320, 100, 7):
        for one, two in zip(whole, scored(slab), strict=True):
            np.testing.assert_allclose(one.surprise, two.surprise, rtol=1e-6)
            np.testing.assert_allclose(one.kl, two.kl, atol=1e-6)
            np.testing.assert_array_equal(one.same, two.same)
