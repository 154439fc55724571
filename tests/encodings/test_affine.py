"""MLX's affine types by their rule: the end of larger magnitude and 0 are levels, all codes are the nearest."""

from __future__ import annotations

import numpy as np
import pytest

from gemmaq.encodings import ENCODINGS, codec, dequantize

BITS = (2, 3, 4, 5, 6, 8)


@pytest.mark.parametrize("bits", BITS)
def test_one_end_and_zero_are_exact_and_no_weight_is_farther_than_half_a_step(bits: int) -> None:
    encoding = ENCODINGS[f"affine{bits}-g64"]
    x = np.random.default_rng(bits).standard_normal((32, 256), np.float32)
    values = codec(encoding).nearest(x)
    made, groups = dequantize(encoding, values).reshape(-1, 64), x.reshape(-1, 64)
    at = np.abs(groups).argmax(1)
    rows = np.arange(len(groups))
    assert np.allclose(made[rows, at], groups[rows, at], rtol=1e-6)
    scales, minima = values.scales.reshape(-1, 1), values.minima.reshape(-1, 1)
    levels = minima + scales * np.arange(1 << bits)
    assert np.allclose(np.abs(levels).min(1), 0, atol=1e-6)
    nearest = np.abs(levels[:, None, :] - groups[:, :, None]).min(2)
    assert np.allclose(np.abs(made - groups), nearest, atol=1e-5)


def test_equal_weights_stay_as_they_are() -> None:
    encoding = ENCODINGS["affine4"]
    x = np.full((2, 64), 0.75, np.float32)
    assert np.array_equal(dequantize(encoding, codec(encoding).nearest(x)), x)
