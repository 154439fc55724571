"""Coordinate descent: the error of a layer's output only falls, and ends where no single change lowers it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemmaq.calibration import gptq
from gemmaq.encodings import ENCODINGS, Encoding, Quantized, dequantize
from gemmaq.inference import device as devices
from gemmaq.inference.device import Device
from gemmaq.methods import METHODS

torch = pytest.importorskip("torch")

NAMES = [name for name in METHODS["gptq"].encodings if ENCODINGS[name].bits < 8 and name.partition("-")[2] != "g128"]
HELD = [name for name in NAMES if gptq.Blocks.of(ENCODINGS[name]).held]
ROWS, COLUMNS = 70, 512


@pytest.fixture(scope="module")
def device() -> Iterator[Device]:
    with devices.open_device("cpu", 1) as made:
        yield made


@pytest.fixture(scope="module")
def weights() -> np.ndarray:
    return (np.random.default_rng(3).standard_normal((ROWS, COLUMNS)) * 0.02).astype(np.float32)


@pytest.fixture(scope="module")
def inputs() -> np.ndarray:
    """Correlated inputs of very different size, f64 [tokens, columns]."""
    random = np.random.default_rng(5)
    mixed = random.standard_normal((1500, 60)) @ random.standard_normal((60, COLUMNS))
    return (mixed + 0.5 * random.standard_normal(mixed.shape)) * np.exp(random.standard_normal(COLUMNS))


def inverse_of(inputs: np.ndarray, encoding: Encoding, device: Device) -> gptq.InverseHessian:
    H = torch.from_numpy((inputs.T @ inputs).astype(np.float32))
    return gptq.invert(H, gptq.Settings(), blocks=gptq.Blocks.of(encoding), device=device)


def error(weights: np.ndarray, values: Quantized, encoding: Encoding, inverse: gptq.InverseHessian) -> np.ndarray:
    """What is minimised, f64 [rows]: the error of the output with the dampening."""
    off = (dequantize(encoding, values).astype(np.float64) - weights).astype(np.float64)
    H = inverse.H.numpy().astype(np.float64) + inverse.ridge * np.eye(weights.shape[1])
    return np.einsum("ri,ij,rj->r", off, H, off)


@pytest.mark.parametrize("name", NAMES)
def test_errors_fall_and_scales_are_stored_exactly(name, weights, inputs, device):
    encoding = ENCODINGS[name]
    inverse = inverse_of(inputs, encoding, device)
    portable = encoding.scales != "bf16" and name not in HELD
    errors = []
    for sweeps in (0, 1, 3):
        values = gptq.quantize(weights, inverse, encoding, portable=portable, device=device, sweeps=sweeps)
        errors.append(error(weights, values, encoding, inverse))
    assert np.all(errors[1] <= errors[0] * (1 + 1e-4)) and np.all(errors[2] <= errors[1] * (1 + 1e-4))
    assert errors[2].sum() < (0.99 if name in HELD else 0.93) * errors[0].sum()
    for some in () if name in HELD else (values.scales, values.minima):
        if some is not None:
            kept = torch.from_numpy(some).to(torch.float16 if portable else torch.bfloat16)
            np.testing.assert_array_equal(some, kept.float().numpy())


def test_no_single_code_is_better_in_the_end(device):
    """A matrix so small that every change of a code can be tried."""
    random = np.random.default_rng(1)
    weights = random.standard_normal((4, 64)).astype(np.float32)
    inputs = random.standard_normal((200, 64)) @ random.standard_normal((64, 64))
    encoding = ENCODINGS["q4_0"]
    inverse = inverse_of(inputs, encoding, device)
    values = gptq.quantize(weights, inverse, encoding, portable=False, device=device, sweeps=40)
    before = error(weights, values, encoding, inverse)
    for row in range(4):
        for column in range(64):
            for code in range(16):
                codes = values.codes.copy()
                codes[row, column] = code
                changed = error(weights, replace(values, codes=codes), encoding, inverse)
                assert changed[row] >= before[row] * (1 - 1e-5)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), rows=st.integers(1, 5), blocks=st.integers(1, 12), name=st.sampled_from(NAMES))
def test_no_matrix_gets_worse(seed, rows, blocks, name, device):
    """Columns without inputs, blocks of zeros, and rows much larger than others are among them."""
    encoding, random = ENCODINGS[name], np.random.default_rng(seed)
    columns = blocks * (encoding.block or 32)
    weights = (random.standard_normal((rows, columns)) * np.exp(random.standard_normal((rows, 1)))).astype(np.float32)
    weights[:, : columns // 4] *= random.integers(0, 2)
    inputs = random.standard_normal((64, columns)) * (random.random(columns) < 0.8)
    inverse = inverse_of(inputs, encoding, device)
    before, after = (
        error(
            weights,
            gptq.quantize(weights, inverse, encoding, portable=False, device=device, sweeps=sweeps),
            encoding,
            inverse,
        )
        for sweeps in (0, 2)
    )
    assert np.all(np.isfinite(after)) and np.all(after <= before * (1 + 1e-3) + 1e-9)


@pytest.mark.parametrize("name", ["q4_0", "iq4_nl", "q4_k"])
def test_rows_do_not_depend_on_each_other_nor_on_threads(name, weights, inputs, device):
    encoding = ENCODINGS[name]
    inverse = inverse_of(inputs, encoding, device)
    whole = gptq.quantize(weights, inverse, encoding, portable=False, device=device, sweeps=2)
    with devices.open_device("cpu", 2) as several:
        again = gptq.quantize(weights, inverse, encoding, portable=False, device=several, sweeps=2)
    np.testing.assert_array_equal(whole.codes, again.codes)
    np.testing.assert_array_equal(whole.scales, again.scales)
    last = gptq.quantize(weights[64:], inverse, encoding, portable=False, device=device, sweeps=2)
    np.testing.assert_array_equal(whole.codes[64:], last.codes)


def test_eight_bits_are_left_alone(weights, inputs, device):
    encoding = ENCODINGS["q8_0"]
    inverse = inverse_of(inputs, encoding, device)
    plain, swept = (
        gptq.quantize(weights, inverse, encoding, portable=False, device=device, sweeps=n).codes for n in (0, 2)
    )
    np.testing.assert_array_equal(plain, swept)
