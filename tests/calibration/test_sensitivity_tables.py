"""Sensitivities of tables."""

from __future__ import annotations

import numpy as np
import pytest

from calibrating import dense, opened
from gemmaq.calibration.sensitivity_errors import fitting
from gemmaq.calibration.sensitivity_head import reference
from gemmaq.calibration.sensitivity_layers import nearest
from gemmaq.calibration.sensitivity_tables import Judged, embedded, losses, probe, table
from gemmaq.checkpoint import Checkpoint
from gemmaq.encodings import ENCODINGS

pytestmark = pytest.mark.usefixtures("torch_and_transformers")
EMBEDDING = "model.embed_tokens.weight"


def test_sequences_are_embedded_with_a_table_in_a_type(checkpoint: Checkpoint, tokens: np.ndarray) -> None:
    rows = nearest(dense(checkpoint, EMBEDDING), ENCODINGS["q4_0"])
    with opened(checkpoint) as net:
        usual, batches = net.embed(tokens), embedded(net, tokens, EMBEDDING, "q4_0")
    expected = rows[tokens[0]] * np.float32(checkpoint.config.hidden_size**0.5)
    np.testing.assert_allclose(batches[0].hidden[0], expected, rtol=1e-6)
    assert not np.array_equal(batches[0].hidden, usual[0].hidden)


def test_a_table_has_the_rows_that_matter(checkpoint: Checkpoint, tokens: np.ndarray) -> None:
    predicted = np.array([1, 5, 310])
    with opened(checkpoint) as net:
        found = table(net, checkpoint.embedding, tokens, predicted)
    assert list(found.ids) == sorted({*tokens.flat, 1, 5, 310})
    assert found.predicted is not None
    assert list(found.ids[found.predicted]) == [1, 5, 310]
    assert found.times.sum() == tokens.size
    np.testing.assert_array_equal(found.rows, dense(checkpoint, EMBEDDING)[found.ids])
    assert found.read_error(found.rows) == 0
    off = found.rows.copy()
    off[np.searchsorted(found.ids, tokens[0, 0])] += 1
    assert found.read_error(off) == pytest.approx((tokens == tokens[0, 0]).sum() * checkpoint.embedding.columns)


def test_the_head_is_measured_in_every_type_and_the_input_scaled(checkpoint: Checkpoint, tokens: np.ndarray) -> None:
    import torch

    with opened(checkpoint) as net:
        states = torch.randn(30, checkpoint.config.hidden_size, generator=torch.Generator().manual_seed(0)) * 20
        other = states + 0.3
        of = reference(net, states)
        found = table(net, checkpoint.embedding, tokens, of.ids)
        types = fitting([checkpoint.embedding.columns], ["q4_0", "q8_0", "bf16"])
        judged = Judged(of, states, states.T @ states)
        made = losses(net, found, types, states=other, measured="q4_0", judged=judged)
        heads = {
            name: torch.from_numpy(nearest(found.rows, ENCODINGS[name])[found.predicted]) for name in ("q4_0", "q8_0")
        }
        joint, alone = of.divergence(other, heads["q4_0"]), of.divergence(states, heads["q8_0"])
    assert made["nearest"]["q4_0"] == pytest.approx(joint)
    assert alone < made["nearest"]["q8_0"] < joint
    assert made["nearest"]["bf16"] == 0
    assert made["gptq"]["q4_0"] > 0


def test_a_table_on_the_grid_of_a_probe_is_run_in_another() -> None:
    rows = np.random.default_rng(0).standard_normal((8, 64), np.float32)
    types = fitting([64], ["q4_0"])
    assert probe(types, rows) == "q4_0"
    assert probe(types, nearest(rows, ENCODINGS["q4_0"])) == "iq4_nl"
