"""The grids: training rounds to what the converter writes, bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import oracles
from gemmaq.encodings import ENCODINGS, dequantize
from gemmaq.methods import Choice, nearest
from gemmaq.methods.lattice import detect
from runtimes import Require

torch = pytest.importorskip("torch")

from gemmaq.qat import grids  # noqa: E402

Q4_0 = ENCODINGS["q4_0"]
GRID = grids.GRIDS["q4_0"]


def converted(x: np.ndarray) -> np.ndarray:
    """What `convert --method nearest --portable` makes of rows."""
    return dequantize(Q4_0, nearest.quantize(x, Q4_0, Choice("nearest", True)))


def same(one: np.ndarray, other: np.ndarray) -> bool:
    return np.array_equal(one.view(np.uint32), other.view(np.uint32))


@st.composite
def rows(draw: st.DrawFn) -> np.ndarray:
    """Rows of blocks as ill as they come: zeros, ties, outliers, numbers of FP16's subnormal range and below."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    x = random.standard_normal((4, 64)).astype(np.float32)
    x *= np.float32(10.0 ** draw(st.integers(-42, 4)))
    kind = draw(st.sampled_from(["plain", "ties", "zeros", "outlier", "steps", "one"]))
    if kind == "ties":
        x[:, 3], x[:, 9] = np.abs(x).max(), -np.abs(x).max()
    elif kind == "zeros":
        x[:, :32] = 0
    elif kind == "outlier":
        x[:, 5] *= np.float32(1000)
    elif kind == "steps":
        x = np.rint(x / np.abs(x).max() * 8) * np.float32(2.0 ** draw(st.integers(-30, 3)))
    elif kind == "one":
        x[:] = 0
        x[:, 40] = np.float32(draw(st.floats(-8e4, 8e4, width=32)))
    return np.ascontiguousarray(x, np.float32)


@settings(max_examples=300, deadline=None)
@given(rows())
def test_forward_is_what_the_converter_writes(x: np.ndarray) -> None:
    expected = converted(x)
    given_x = torch.from_numpy(x)
    assert same(GRID.torch(given_x).numpy(), expected)


@settings(max_examples=100, deadline=None)
@given(rows())
def test_both_ways_to_compute_a_channel_agree(x: np.ndarray) -> None:
    grid = grids.GRIDS["int4-channel"]
    assert same(grids.values(grid, torch.from_numpy(x)).numpy(), grid.torch(torch.from_numpy(x)).numpy())


@pytest.mark.oracle
@settings(max_examples=300, deadline=None)
@given(x=rows())
def test_ggml_finds_the_codes_again(require: Require, x: np.ndarray) -> None:
    oracles.need_ggml(require)
    stored = grids.pegged(grids.values(GRID, torch.from_numpy(x)).numpy())
    in_file = torch.from_numpy(stored).bfloat16().float().numpy()
    packed = oracles.ggml_quantize(2, in_file, Q4_0.row_bytes(64)).reshape(-1, 18)
    scales = np.ascontiguousarray(packed[:, :2]).view(np.float16).astype(np.float32)
    nibbles = np.hstack([packed[:, 2:] & 15, packed[:, 2:] >> 4]).astype(np.float32)
    found = np.where(np.isfinite(scales), scales, 0) * (nibbles - 8)
    if np.abs(x).max() < 6e4:  # beyond, no Q4_0 file holds it
        assert np.array_equal(found, stored.reshape(-1, 32))


def test_real_matrices(sample_bf16: Path) -> None:
    from gemmaq.checkpoint.rows import weights
    from gemmaq.files.span import Reader
    from gemmaq.sources.open import open_source

    tensors = open_source(str(sample_bf16)).tensors
    with Reader() as reader:
        for part in ("self_attn.q_proj", "mlp.down_proj", "mlp.gate_proj"):
            tensor = tensors[f"model.layers.7.{part}.weight"]
            x = weights(tensor, 0, tensor.rows, reader) * np.float32(1.0009)  # off the lattice of the source
            assert same(grids.values(GRID, torch.from_numpy(x)).numpy(), converted(x))


def test_surveys_recognise_both_grids() -> None:
    x = torch.randn(64, 256) * 0.04
    rules = {"q4_0": "extremum/-8", "int4-channel": "per channel"}
    for name, rule in rules.items():
        stored = grids.stored(x, grids.GRIDS[name])
        in_file = torch.from_numpy(stored).bfloat16().float().numpy()
        verdict = detect(in_file)
        assert (verdict.rule, verdict.share) == (rule, 1.0)


def test_pegged_changes_only_what_nobody_sees() -> None:
    random = np.random.default_rng(0)
    for size in (1e-1, 1e-4, 1e-7):
        x = grids.values(GRID, torch.from_numpy(random.standard_normal((64, 64)).astype(np.float32) * size)).numpy()
        assert np.abs(grids.pegged(x) - x).max() < 1e-6
        assert size < 1e-3 or same(grids.pegged(x), x)
