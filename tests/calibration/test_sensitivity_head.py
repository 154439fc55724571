"""Divergences over the likeliest tokens."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from calibrating import opened
from gemmaq.calibration.sensitivity_head import likeliest, reference
from gemmaq.checkpoint import Checkpoint
from gemmaq.errors import InputError
from gemmaq.inference.decoder import Decoder

pytestmark = pytest.mark.usefixtures("torch_and_transformers")


@pytest.fixture
def net(checkpoint: Checkpoint) -> Iterator[Decoder]:
    with opened(checkpoint) as net:
        yield net


def states(net: Decoder, seed: int = 0):
    import torch

    return torch.randn(20, net.checkpoint.config.hidden_size, generator=torch.Generator().manual_seed(seed)) * 20


def probabilities(net: Decoder, seed: int = 0) -> np.ndarray:
    rows = net.read_to_device(net.checkpoint.embedding)
    return (states(net, seed) @ rows.T).double().softmax(-1).numpy()


def test_the_likeliest_tokens_are_chosen_by_their_mean_probability(net: Decoder) -> None:
    expected = probabilities(net).mean(0)
    ids, mass = likeliest(net, states(net), 50)
    assert set(ids) == set(np.argsort(-expected)[:50])
    assert list(ids) == sorted(ids)
    assert mass == pytest.approx(expected[ids].sum(), abs=1e-5)


def test_a_divergence_is_over_renormalized_probabilities(net: Decoder) -> None:
    of = reference(net, states(net), 50)
    p, q = (
        found[:, of.ids] / found[:, of.ids].sum(1, keepdims=True)
        for found in map(lambda s: probabilities(net, s), (0, 1))
    )
    assert of.divergence(states(net, 1)) == pytest.approx((p * np.log(p / q)).sum(1).mean(), rel=1e-4)
    assert of.divergence(states(net)) == pytest.approx(0, abs=1e-6)


def test_the_head_may_have_other_rows(net: Decoder) -> None:
    of = reference(net, states(net))
    assert of.mass == 1
    assert of.divergence(states(net) / 2, of.rows * 2) == pytest.approx(0, abs=1e-6)
    assert of.divergence(states(net), of.rows * 2) > 0.01


def test_states_that_are_not_finite_are_refused(net: Decoder) -> None:
    with pytest.raises(InputError, match="not finite"):
        reference(net, states(net)).divergence(states(net) * np.inf)
