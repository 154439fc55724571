"""Errors of outputs in types, by methods."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from gemmaq import methods
from gemmaq.calibration.gptq import Settings
from gemmaq.calibration.sensitivity_errors import PROBES, Case, errors, fitting, probe, scaled, some_rows
from gemmaq.encodings import ENCODINGS, dequantize
from gemmaq.inference.device import Device, open_device
from gemmaq.methods import Choice

pytestmark = pytest.mark.usefixtures("torch_and_transformers")
TYPES = [ENCODINGS[name] for name in ("bf16", "q4_0", "q5_0")]


@pytest.fixture
def device() -> Iterator[Device]:
    with open_device("cpu", 2) as device:
        yield device


def case(weights: np.ndarray | None = None, solved: bool = True) -> Case:
    """A matrix of 64 columns, some of whose inputs are much larger than others."""
    import torch

    random = np.random.default_rng(0)
    weights = random.standard_normal((16, 64), np.float32) if weights is None else weights
    sizes = np.exp(random.standard_normal(64)).astype(np.float32)
    mixed = random.standard_normal((64, 64), np.float32) * sizes
    inputs = torch.from_numpy(random.standard_normal((300, 64), np.float32) @ mixed)
    return Case(weights, inputs[:50], inputs[50:].T @ inputs[50:] if solved else None, 250)


def test_errors_are_those_of_the_outputs(device: Device) -> None:
    one = case(solved=False)
    found = errors([one, one], TYPES, Settings(), device=device, once=False)
    assert list(found) == ["nearest"]
    for encoding in TYPES:
        off = one.weights - dequantize(encoding, methods.quantize(one.weights, encoding, Choice("nearest")))
        expected = 2 * np.square(one.inputs.numpy() @ off.T).sum()
        assert found["nearest"][encoding.name] == pytest.approx(expected, rel=1e-4)


def test_calibrated_methods_err_less(device: Device) -> None:
    found = errors([case()], TYPES, Settings(), device=device, once=False)
    assert set(found["gptq"]) == set(found["importance"]) == {"q4_0", "q5_0"}
    for name in ("q4_0", "q5_0"):
        assert found["gptq"][name] < found["importance"][name] < found["nearest"][name]


def test_one_order_of_columns_serves_types_of_all_blocks(device: Device) -> None:
    types = [ENCODINGS[name] for name in ("q4_0", "affine4-g64", "int4-channel")]
    each, once = (errors([case()], types, Settings(), device=device, once=once)["gptq"] for once in (False, True))
    for name, error in each.items():
        assert 0.8 * error < once[name] < 2 * error


def test_weights_on_the_grid_of_a_probe_are_run_in_another(device: Device) -> None:
    on_grid = dequantize(TYPES[1], methods.quantize(case().weights, TYPES[1], Choice("nearest")))
    types = fitting([64], ["q4_0"])
    assert {e.name for e in types} == {*PROBES}
    for weights, name in ((case().weights, "q4_0"), (on_grid, "iq4_nl")):
        one = case(weights)
        assert probe([one], errors([one], types, Settings(), device=device, once=False)) == name


def test_losses_grow_as_errors_do() -> None:
    found = {"nearest": {"q4_0": 4.0, "q5_0": 1.0}, "gptq": {"q4_0": 2.0}}
    assert scaled(0.1, found, "q4_0") == {"nearest": {"q4_0": 0.1, "q5_0": 0.025}, "gptq": {"q4_0": 0.05}}
    assert scaled(0.0, {"nearest": {"q4_0": 0.0}}, "q4_0") == {"nearest": {"q4_0": 0.0}}


def test_types_fit_all_rows() -> None:
    assert "q4_k" in {e.name for e in fitting([256, 512])}
    assert "q4_k" not in {e.name for e in fitting([256, 640])}
    assert fitting([100]) == fitting([100], ["f32", "f16", "bf16"])


def test_rows_are_spread_over_a_matrix() -> None:
    assert some_rows(5, 3) == [0, 2, 4]
    assert some_rows(2, 3) == [0, 1]
