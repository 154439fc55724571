"""One layer of a measurement."""

from __future__ import annotations

import numpy as np
import pytest

from calibrating import dense, naive_inputs, opened
from gemmaq.calibration.gptq import Settings
from gemmaq.calibration.sensitivity_errors import ROWS
from gemmaq.calibration.sensitivity_layers import changed, errors_of, nearest, through
from gemmaq.checkpoint import Checkpoint
from gemmaq.encodings import ENCODINGS

pytestmark = pytest.mark.usefixtures("torch_and_transformers")


def test_cases_have_rows_and_inputs_of_the_matrices(checkpoint: Checkpoint, model, tokens: np.ndarray) -> None:
    inputs = naive_inputs(model, tokens)
    tensors = [t for t in checkpoint.matrices.values() if t.place.layer == 0][:5]
    with opened(checkpoint) as net:
        probed, calibrating = net.embed(tokens[:2]), net.embed(tokens[2:])
        module = net.layer(0)
        before = calibrating[0].hidden.clone()
        after, cases = through(net, 0, module, batches=probed, calibrating=calibrating, tensors=tensors)
    assert len(after) == 2
    assert not np.array_equal(calibrating[0].hidden, before)
    assert set(cases) == {tensor.name for tensor in tensors}
    for tensor in tensors:
        (case,) = cases[tensor.name]
        seen, split = inputs[tensor.name], 2 * tokens.shape[1]
        np.testing.assert_allclose(case.inputs, seen[:split], rtol=1e-3, atol=1e-4)
        expected = seen[split:].T @ seen[split:]
        np.testing.assert_allclose(case.hessian, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
        assert case.count == 3 * tokens.shape[1]
        assert len(case.weights) == min(ROWS, tensor.rows)


def test_a_changed_layer_shares_all_other_weights(checkpoint: Checkpoint) -> None:
    tensor = checkpoint.tensors["model.layers.1.mlp.up_proj.weight"]
    with opened(checkpoint) as net:
        module = net.layer(1)
        other = changed(net, 1, module, {tensor.place.part: (tensor, "q4_0")})
    expected = nearest(dense(checkpoint, tensor.name), ENCODINGS["q4_0"])
    np.testing.assert_array_equal(other.get_parameter("mlp.up_proj.weight").detach(), expected)
    same = [n for n, p in module.named_parameters() if other.get_parameter(n).data_ptr() == p.data_ptr()]
    assert len(same) == len(list(module.named_parameters())) - 1


def test_the_probe_is_chosen_with_the_errors(checkpoint: Checkpoint, tokens: np.ndarray) -> None:
    tensor = checkpoint.tensors["model.layers.0.mlp.up_proj.weight"]
    with opened(checkpoint) as net:
        _, cases = through(
            net, 0, net.layer(0), batches=net.embed(tokens[:2]), calibrating=net.embed(tokens[2:]), tensors=[tensor]
        )
        types = [ENCODINGS["q4_0"], ENCODINGS["q8_0"]]
        probe, errors = errors_of(net, cases[tensor.name], types, settings=Settings(), once=False)
    assert probe == "q4_0"
    assert errors["nearest"]["q8_0"] < errors["nearest"]["q4_0"]
