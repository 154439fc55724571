"""Method nearest on portable scales: every container holds them, codes move only where a scale did."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gemmaq.checkpoint.rows import weights
from gemmaq.encodings import ENCODINGS, codec, dequantize
from gemmaq.files.span import Reader
from gemmaq.methods import Choice, quantize
from gemmaq.sources.open import open_source
from grids import wide
from oracles import ggml_folder, ggml_quantize
from synthetic import bf16

SYMMETRIC = ("q4_0", "q5_0", "q8_0")
TYPES = (*SYMMETRIC, "q4_1", "q5_1", "iq4_nl")
PORTABLE, OWN = Choice("nearest", portable=True), Choice("nearest")


@pytest.fixture(scope="module")
def real(sample_bf16: Path) -> np.ndarray:
    tensor = open_source(str(sample_bf16)).tensors["model.layers.7.mlp.gate_proj.weight"]
    with Reader() as reader:
        return weights(tensor, 0, 512, reader)


def held(scales: np.ndarray) -> np.ndarray:
    """Which scales both BF16 and FP16 hold."""
    with np.errstate(over="ignore"):
        return (wide(bf16(scales)) == scales) & (scales.astype(np.float16).astype(np.float32) == scales)


def square_error(name: str, x: np.ndarray, choice: Choice) -> np.ndarray:
    off = dequantize(ENCODINGS[name], quantize(x, ENCODINGS[name], choice)).astype(np.float64) - x
    return np.square(off).reshape(-1, 32).sum(axis=1)


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("jitter", [False, True], ids=["bf16 weights", "f32 weights"])
def test_real_weights(name: str, jitter: bool, real: np.ndarray) -> None:
    noise = np.random.default_rng(0).uniform(-1e-4, 1e-4, real.shape).astype(np.float32) if jitter else 0
    x = real + noise
    before = codec(ENCODINGS[name]).nearest(x)
    after = quantize(x, ENCODINGS[name], PORTABLE)
    assert held(after.scales).all()
    same = before.scales == after.scales
    if after.minima is not None:
        assert held(after.minima).all()
        same &= before.minima == after.minima
    else:
        codes = np.repeat(same, 32, axis=1)
        np.testing.assert_array_equal(after.codes[codes], before.codes[codes])
    np.testing.assert_allclose(after.scales, before.scales, rtol=2**-8, atol=2**-25)
    exact = not jitter and name in ("q4_0", "q5_0")
    assert same.all() == exact
    allowed = 1.0 if exact else 1.02
    assert square_error(name, x, PORTABLE).sum() <= allowed**2 * square_error(name, x, OWN).sum()


def half_kept(name: str, real: np.ndarray) -> np.ndarray:
    """Weights of whose scales about half are portable as they are."""
    moved = real + np.random.default_rng(0).uniform(-1e-4, 1e-4, real.shape).astype(np.float32)
    if name != "q8_0":
        return np.concatenate([real[:256], moved[256:]])
    blocks = moved.reshape(-1, 32)
    wanted = np.float32(127) * wide(bf16(np.random.default_rng(1).uniform(1e-4, 1e-3, len(blocks))))
    wanted[::2] *= np.float32(1.003)
    return (blocks / np.abs(blocks).max(axis=1, keepdims=True) * wanted[:, None]).reshape(real.shape)


@pytest.mark.oracle
@pytest.mark.parametrize("name", SYMMETRIC)
def test_codes_are_those_of_ggml_where_the_scale_is(name: str, real: np.ndarray, require) -> None:
    require(ggml_folder() is not None, "npm package @node-llama-cpp/linux-x64")
    x, encoding = half_kept(name, real), ENCODINGS[name]
    values = quantize(x, encoding, PORTABLE)
    theirs = ggml_quantize(encoding.ggml_type, x, encoding.row_bytes(x.shape[1])).reshape(-1, encoding.block_bytes)
    packed = codec(encoding).pack(values).reshape(-1, encoding.block_bytes)
    kept = (values.scales == codec(encoding).nearest(x).scales).reshape(-1)
    assert 0.4 < kept.mean() < 0.6
    np.testing.assert_array_equal(packed[kept], theirs[kept])
    assert (packed[~kept, :2] != theirs[~kept, :2]).any()


FLOATS = st.floats(-(2.0**15), 2.0**15, width=32) | st.floats(-1, 1, width=32)


@pytest.mark.parametrize("name", TYPES)
@settings(deadline=None, max_examples=200)
@given(x=arrays(np.float32, (2, 32), elements=FLOATS))
def test_any_weights(name: str, x: np.ndarray) -> None:
    encoding = ENCODINGS[name]
    values = quantize(x, encoding, PORTABLE)
    assert values.codes.max() < 1 << encoding.bits
    assert held(values.scales).all() and (values.minima is None or held(values.minima).all())
    span = np.abs(x).max(axis=1)
    # a scale off by 2^-9, and half a step; a whole one between the levels of a codebook, whose scale is a compromise
    step = np.abs(values.scales).max(axis=1) * np.diff(encoding.codebook or (0, 1)).max()
    ends = 2.0**-8 * span + 1.02 * step
    assert (np.abs(dequantize(encoding, values) - x).max(axis=1) <= ends + 2.0**-14).all()
