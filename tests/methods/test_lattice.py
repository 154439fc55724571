"""Method lattice: weights on any of the published int4 grids come back with their codes, ordinary weights are told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gemmaq.checkpoint.rows import weights
from gemmaq.encodings import ENCODINGS, dequantize
from gemmaq.errors import InputError
from gemmaq.files.span import Reader
from gemmaq.methods import Choice, quantize
from gemmaq.methods.lattice import detect
from gemmaq.models.samples import SAMPLE
from gemmaq.planning.survey import detect_grids
from gemmaq.sources.open import open_source
from grids import RULES, absmax_7, wide
from synthetic import bf16

Q4_0 = ENCODINGS["q4_0"]


def rounded(x: np.ndarray) -> np.ndarray:
    return wide(bf16(x))


def noisy(x: np.ndarray) -> np.ndarray:
    """Rounded to BF16, then up to half a unit in the last place away."""
    noise = np.random.default_rng(2).uniform(-1, 1, x.shape)
    return (rounded(x) * (1 + noise * 2.0**-9)).astype(np.float32)


STORED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "f32": lambda x: x,
    "f16": lambda x: x.astype(np.float16).astype(np.float32),
    "bf16": rounded,
    "bf16 with noise": noisy,
}


@pytest.fixture(scope="module")
def ordinary(sample_bf16: Path) -> np.ndarray:
    """Rows of a real matrix, moved off the grid that its source left them on, f32 [320, 2048]."""
    tensor = open_source(str(sample_bf16)).tensors["model.layers.3.mlp.down_proj.weight"]
    with Reader() as reader:
        x = weights(tensor, 0, 320, reader)
    return x + np.random.default_rng(0).uniform(-5e-4, 5e-4, x.shape).astype(np.float32)


def error(x: np.ndarray, method: str, portable: bool = False) -> float:
    """Root mean square error of a method, relative to the weights."""
    off = dequantize(Q4_0, quantize(x, Q4_0, Choice(method, portable))) - x
    return float(np.sqrt(np.square(off).sum() / np.square(x).sum()))


@pytest.mark.parametrize("scale", ["f32", "bf16"])
@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("rule", RULES)
def test_a_grid_is_recovered_whole(rule: str, stored: str, scale: str, ordinary: np.ndarray) -> None:
    scales, codes = RULES[rule](ordinary)
    scales = rounded(scales) if scale == "bf16" else scales.astype(np.float32)
    x = STORED[stored]((scales[:, None] * codes).astype(np.float32)).reshape(ordinary.shape)
    verdict = detect(x)
    assert (verdict.rule, verdict.on_grid) == (rule, True)
    assert verdict.share > 0.99 and verdict.residual < 2e-3
    values = quantize(x, Q4_0, Choice("lattice"))
    found = values.codes.reshape(-1, 32).astype(int) - 8
    turned = (values.scales.reshape(-1) * scales < 0)[:, None]
    # a block whose codes have a common divisor lies on a coarser grid just as well
    divisor = np.gcd.reduce(np.abs(codes).astype(int), axis=1, keepdims=True)
    assert (np.where(turned, -found, found) * divisor == codes).all()
    assert error(x, "lattice") < 2e-3
    assert error(x, "lattice", portable=True) < 4e-3
    if rule in ("absmax/7", "absmax/7.5"):
        assert 0.05 < error(x, "nearest") < 0.1


@pytest.mark.parametrize("scale", [1e-3, 1.0, 40.0])
def test_ordinary_weights_are_told_from_a_grid(scale: float, ordinary: np.ndarray) -> None:
    random = np.random.default_rng(3)
    for x in (
        ordinary,
        random.standard_normal((64, 640)),
        random.laplace(size=(64, 640)),
        random.uniform(-1, 1, (64, 640)),
    ):
        for stored in (lambda x: x, rounded):
            verdict = detect(stored((x * scale).astype(np.float32)))
            assert verdict.rule is None and not verdict.on_grid and verdict.share < 0.01


def test_too_little_to_tell() -> None:
    few = absmax_7(np.random.default_rng(4).standard_normal((1, 32 * 15)).astype(np.float32))
    for x in ((few[0][:, None] * few[1]).reshape(1, -1), np.zeros((64, 640))):
        verdict = detect(x.astype(np.float32))
        assert verdict.rule is None and verdict.blocks < 16


def test_the_real_270m_lies_on_no_int4_grid(sample_bf16: Path) -> None:
    """Its matrices were Q4_K, Q5_0, Q6_K and Q8_0 once; those of Q5_0 are on that grid still."""
    once = {name: tensor.encoding.name for name, tensor in open_source(SAMPLE.source).tensors.items()}
    verdicts = detect_grids(open_source(str(sample_bf16)))
    assert len(verdicts) == 127
    assert not any(verdict.on_grid for verdict in verdicts.values())
    named = {name for name, verdict in verdicts.items() if verdict.rule is not None}
    assert {verdicts[name].rule for name in named} == {"Q5_0"}
    assert named == {name for name in verdicts if once[name] == "q5_0"} and len(named) == 81


def test_some_blocks_off_the_grid_do_not_cost_the_others(ordinary: np.ndarray) -> None:
    scales, codes = absmax_7(ordinary)
    x = rounded(scales[:, None] * codes).reshape(ordinary.shape)
    x[:3] = ordinary[:3]
    assert detect(x).on_grid
    assert error(x[3:], "lattice") < 2e-3
    assert error(x[:3], "lattice") <= 1.01 * error(x[:3], "nearest")


@pytest.mark.parametrize("name", ["q8_0", "q4_1"])
def test_other_types_have_no_grid(name: str) -> None:
    with pytest.raises(InputError, match=name.upper()):
        quantize(np.ones((1, 32), np.float32), ENCODINGS[name], Choice("lattice"))


FLOATS = (
    st.floats(-100, 100, width=32) | st.floats(-1, 1, width=32) | st.sampled_from([0.0, 1.0, -1.0, 1e-20, -1e-38, 3e4])
)
BLOCKS = arrays(np.float32, (1, 64), elements=FLOATS, fill=st.nothing() | st.floats(-0.125, 0.125, width=32))


@settings(deadline=None, max_examples=500)
@given(x=BLOCKS, portable=st.booleans())
@example(x=np.array([[1.0, 0.8691406] + [0.0] * 30], np.float32), portable=False)
def test_any_weights_get_codes_of_four_bits_and_no_worse_than_nearest(x: np.ndarray, portable: bool) -> None:
    values = quantize(x, Q4_0, Choice("lattice", portable))
    assert values.codes.max() <= 15
    assert np.isfinite(values.scales).all()

    def norm(rows: np.ndarray) -> np.ndarray:
        return np.sqrt(np.square(rows).reshape(-1, 32).sum(axis=1))

    ours, nearest = (
        norm(dequantize(Q4_0, quantize(x, Q4_0, Choice(method, portable))) - x) for method in ("lattice", "nearest")
    )
    slack = 2.0**-8 if portable else 1e-6  # a scale rounded to BF16 moves every weight by up to 2^-9 of itself
    tolerance = 0.12 / 8  # of a weight: what lies that close to a grid gets its codes, even if nearest is closer yet
    assert (ours <= np.maximum(1.05 * nearest + slack * norm(x), tolerance * norm(x))).all()


@pytest.mark.parametrize("first", [-1, 1])
def test_the_first_of_two_extremes_of_one_magnitude_gets_the_code_of_minus_8(first: int) -> None:
    """A block with -8 and 8 is on the grid of neither sign; one whose other weights fit takes the sign of the first."""
    levels = np.arange(32) % 15 - 7
    levels[3] = 8 * first
    x = (levels * np.float32(0.0625)).astype(np.float32)[None]
    values = quantize(x, Q4_0, Choice("lattice"))
    assert values.codes[0, 3] == 0 and values.scales[0, 0] == -first * np.float32(0.0625)
    assert np.array_equal(dequantize(Q4_0, values), x)


@pytest.mark.parametrize("at", [0, 1, 2, 31])
def test_a_single_weight_off_the_grid_is_found_wherever_it_is(at: int) -> None:
    levels = np.arange(32) % 15 - 7.0
    levels[at] = 3.4
    fit = detect(np.tile((levels * 0.0625).astype(np.float32), (64, 1)))
    assert fit.share == 0
