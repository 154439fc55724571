"""Batches, cut into sequences and put together again."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")


def test_sequences_keep_what_is_theirs() -> None:
    from gemmaq.inference.batch import Batch, joined

    hidden, places = torch.arange(24.0).reshape(3, 2, 4), torch.tensor([[0, 1], [1, 2], [2, 0]])
    inputs, keys = torch.arange(12.0).reshape(3, 2, 2), torch.arange(6.0).reshape(3, 2)
    whole = Batch(hidden, places, inputs, {"keys": (keys, 2 * keys)})
    assert whole.tokens == 6
    layer_input = whole.layer_input(1)
    assert layer_input is not None and layer_input[1].tolist() == [[6, 7], [10, 11]]
    parts = whole.split()
    assert [part.hidden.shape[0] for part in parts] == [1, 1, 1]
    again = joined([parts[2], parts[0]])
    assert torch.equal(again.hidden, hidden[[2, 0]]) and torch.equal(again.places, places[[2, 0]])
    assert torch.equal(again.shared["keys"][1], 2 * keys[[2, 0]]) and again.inputs is inputs
    assert Batch(hidden, places).layer_input(0) is None
