"""Tensors that lie on an int4 grid in part: what is recovered, what is rounded, and the figures that are told."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemmaq.encodings import ENCODINGS
from gemmaq.methods import Choice, quantize
from gemmaq.methods.lattice import GridFit, Verdict, detect, together
from grids import extremum, wide
from synthetic import bf16

Q4_0 = ENCODINGS["q4_0"]
ROWS, COLUMNS = 24, 320
SCALES = {
    "f32": lambda d: d.astype(np.float32),
    "f16": lambda d: d.astype(np.float16).astype(np.float32),
    "bf16": lambda d: wide(bf16(d.astype(np.float32))),
}
SEEDS = st.integers(0, 2**32 - 1)


def ordinary(seed: int, scale: float = 0.03) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((ROWS, COLUMNS)) * scale
    return wide(bf16(x.astype(np.float32)))


def trained(seed: int, scale: str = "bf16", size: float = 0.03) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights on extremum/-8, stored in BF16, with their scales and signed codes by block."""
    d, _ = extremum(ordinary(seed, size))
    d = SCALES[scale](d)
    codes = np.clip(np.rint(ordinary(seed, size).reshape(-1, 32) / d[:, None]), -8, 7)
    return wide(bf16((d[:, None] * codes).astype(np.float32))).reshape(ROWS, COLUMNS), d, codes


@settings(deadline=None, max_examples=60)
@given(seed=SEEDS, scale=st.sampled_from(list(SCALES)), size=st.sampled_from([0.004, 0.03, 1.0]))
def test_all_codes_of_a_trained_tensor_are_recovered(seed: int, scale: str, size: float) -> None:
    x, d, codes = trained(seed, scale, size)
    fit = detect(x)
    assert (fit.rule, fit.verdict, fit.share, fit.distance) == ("extremum/-8", Verdict.WHOLE, 1.0, 0.0)
    values = quantize(x, Q4_0, Choice("lattice"))
    found = values.codes.reshape(-1, 32).astype(int) - 8
    turned = (values.scales.reshape(-1) * d < 0)[:, None]
    divisor = np.gcd.reduce(np.abs(codes).astype(int), axis=1, keepdims=True)  # the same weights on a coarser grid
    assert (np.where(turned, -found, found) * divisor == codes).all()


@settings(deadline=None, max_examples=60)
@given(seed=SEEDS, share=st.sampled_from([0.1, 0.5, 0.9, 0.97]), portable=st.booleans())
def test_blocks_on_the_grid_are_recovered_and_the_others_are_those_of_nearest(
    seed: int, share: float, portable: bool
) -> None:
    on, _, _ = trained(seed)
    random = np.random.default_rng(seed)
    fits = random.permutation(on.size // 32) < round(share * on.size / 32)
    mixed = np.where(fits[:, None], on.reshape(-1, 32), ordinary(seed + 1).reshape(-1, 32))
    x = mixed.reshape(on.shape)
    fit = detect(x)
    assert fit.verdict is Verdict.PARTIAL and fit.rule == "extremum/-8" and not fit.on_grid
    assert fit.share == pytest.approx(fits.mean()) and fit.residual < 3e-3 and 0.06 < fit.distance < 0.11
    ours, whole, nearest = (
        quantize(rows, Q4_0, Choice(method, portable))
        for rows, method in ((x, "lattice"), (on, "lattice"), (x, "nearest"))
    )
    for blocks, expected in ((fits, whole), (~fits, nearest)):
        assert np.array_equal(ours.codes.reshape(-1, 32)[blocks], expected.codes.reshape(-1, 32)[blocks])
        assert np.array_equal(ours.scales.reshape(-1)[blocks], expected.scales.reshape(-1)[blocks])


@settings(deadline=None, max_examples=30)
@given(seed=SEEDS)
def test_ordinary_weights_are_told_with_their_distance(seed: int) -> None:
    fit = detect(ordinary(seed))
    assert (fit.rule, fit.verdict, fit.share) == (None, Verdict.NONE, 0.0) and 0.07 < fit.distance < 0.1


@pytest.mark.parametrize("noise", [0.01, 0.02, 0.04])
def test_noise_shows_in_the_distance(noise: float) -> None:
    x, _, _ = trained(1)
    x = wide(bf16((x * (1 + noise * np.random.default_rng(2).standard_normal(x.shape))).astype(np.float32)))
    fit = detect(x)
    assert fit.verdict is Verdict.NONE and fit.share < 0.05
    assert 0.8 * noise < fit.distance < 1.2 * noise


def test_a_stack_has_the_verdicts_of_its_experts() -> None:
    whole, none = detect(trained(3)[0]), detect(ordinary(4))
    half = detect(np.where(np.arange(ROWS)[:, None] % 2 == 0, trained(3)[0], ordinary(4)))
    stack = together([whole, whole, half, none])
    assert stack.verdict is Verdict.PARTIAL and stack.rule == "extremum/-8"
    assert [stack.experts_with(v) for v in Verdict] == [2, 1, 1]
    assert stack.share == pytest.approx(2.5 / 4) and stack.blocks == 4 * whole.blocks
    assert stack.residual < 3e-3 and 0.07 < stack.distance < 0.1
    assert together([whole, whole]).verdict is Verdict.WHOLE and together([none, none]).verdict is Verdict.NONE
    assert together([none, none]).rule is None and together([none, none]).distance == pytest.approx(none.distance)


@settings(deadline=None, max_examples=20)
@given(on=st.lists(st.booleans(), min_size=2, max_size=16), scale=st.sampled_from(list(SCALES)))
def test_verdicts_of_a_mixed_stack_are_exact(on: list[bool], scale: str) -> None:
    stack = together([detect(trained(n, scale)[0] if trains else ordinary(n)) for n, trains in enumerate(on)])
    assert [expert.on_grid for expert in stack.experts] == on
    expected = {(True,): Verdict.WHOLE, (False,): Verdict.NONE}.get(tuple(set(on)), Verdict.PARTIAL)
    assert stack.verdict is expected and stack.share == pytest.approx(np.mean(on))


def test_experts_without_weights_prove_nothing() -> None:
    empty = detect(np.zeros((ROWS, COLUMNS), np.float32))
    assert empty == GridFit(None, 0.0, 0.0, 0)
    assert together([empty, empty]).verdict is Verdict.NONE
    assert together([empty, empty]).share == 0.0
