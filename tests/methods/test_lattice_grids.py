"""Grids are named for what they are: bits, one scale per block or per channel, whole or half steps."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from gemmaq.encodings import ENCODINGS, dequantize
from gemmaq.methods import Choice, quantize
from gemmaq.methods.lattice import Verdict, detect
from gemmaq.methods.lattice_grids import GRIDS
from grids import wide
from synthetic import bf16

Q4_0 = ENCODINGS["q4_0"]


def absmax(x: np.ndarray) -> np.ndarray:
    return np.abs(x).max(axis=-1, keepdims=True)


def whole_steps(bits: int) -> Callable[[np.ndarray], np.ndarray]:
    """absmax/7 and its like: groups are the last axis."""
    top = max(1, (1 << (bits - 1)) - 1)
    return lambda x: np.rint(x / absmax(x) * top) * (absmax(x) / top)


def full_range(bits: int) -> Callable[[np.ndarray], np.ndarray]:
    """Codes -2..1, -8..7 or -128..127, with some weights clipped."""
    half = 1 << (bits - 1)
    return lambda x: np.clip(np.rint(x / absmax(x) * half * 1.25), -half, half - 1) * (absmax(x) / half / 1.25)


def half_steps(bits: int) -> Callable[[np.ndarray], np.ndarray]:
    half = 1 << (bits - 1)
    return lambda x: (np.clip(np.floor(x / absmax(x) * half), -half, half - 1) + 0.5) * (absmax(x) / half)


MADE = {
    "ternary": (whole_steps(2), "2-bit channel"),
    "2 bits": (full_range(2), "2-bit channel"),
    "4 bits": (whole_steps(4), "per channel"),
    "4 bits, full range": (full_range(4), "per channel"),
    "8 bits": (whole_steps(8), "8-bit channel"),
    "8 bits, full range": (full_range(8), "8-bit channel"),
    "2-bit half steps": (half_steps(2), "2-bit halves"),
    "4-bit half steps": (half_steps(4), "4-bit halves"),
}
"""What weights are made as -> maker, name of the grid."""


def stored(x: np.ndarray) -> np.ndarray:
    return wide(bf16(x.astype(np.float32)))


@pytest.mark.parametrize("width", [None, 256])
@pytest.mark.parametrize("made", MADE)
@pytest.mark.parametrize("spread", [np.random.Generator.standard_normal, np.random.Generator.laplace])
def test_a_grid_with_a_scale_per_channel(made: str, width: int | None, spread: Callable[..., np.ndarray]) -> None:
    maker, name = MADE[made]
    x = spread(np.random.default_rng(5), size=(16, 768)) * 0.03
    x = stored(maker(x.reshape(-1, width or 768)).reshape(x.shape))
    fit = detect(x, width)
    assert fit.rule == name and fit.share == 1.0 and fit.residual < 3e-3
    assert fit.blocks >= (0.75 if made == "ternary" else 1.0) * x.size / 32  # all but a few of a channel may be zero
    assert fit.on_grid is GRIDS[name].held
    if fit.on_grid:
        assert np.allclose(dequantize(Q4_0, quantize(x, Q4_0, Choice("lattice"))), x, rtol=2**-7, atol=0)


def test_half_steps_with_a_scale_per_block_are_not_five_bits() -> None:
    x = np.random.default_rng(6).standard_normal((256, 32)) * 0.03
    x = stored(half_steps(4)(x)).reshape(16, 512)
    fit = detect(x)
    assert (fit.rule, fit.verdict) == ("half steps", Verdict.NONE) and fit.share == 1.0


def test_channels_of_one_block_are_blocks() -> None:
    x = np.random.default_rng(7).standard_normal((256, 32)) * 0.03
    assert detect(stored(whole_steps(4)(x))).rule == "absmax/7"


@pytest.mark.parametrize("columns", [64, 256, 2816])
@pytest.mark.parametrize("kind", ["normal", "laplace", "uniform", "heavy tails", "sparse"])
def test_random_channels_lie_on_no_grid(kind: str, columns: int) -> None:
    random = np.random.default_rng(8)
    shape = 1 << 18 >> (columns.bit_length() - 1), columns
    x = {
        "normal": random.standard_normal,
        "laplace": lambda size: random.laplace(size=size),
        "uniform": lambda size: random.uniform(-1, 1, size),
        "heavy tails": lambda size: random.standard_t(2, size),
        "sparse": lambda size: random.standard_normal(size) * (random.random(size) < 0.3),
    }[kind](shape)
    fit = detect(stored(x * 0.03))
    assert (fit.rule, fit.verdict) == (None, Verdict.NONE) and fit.share < 1e-3


def test_every_grid_has_its_levels() -> None:
    assert {name for name, grid in GRIDS.items() if not grid.held} == {
        "4-bit halves",
        "half steps",
        "Q5_0",
        "8-bit channel",
    }
    assert all(grid.bits <= 4 for grid in GRIDS.values() if grid.held)
