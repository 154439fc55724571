"""IQ4_NL and IQ4_XS: codes are the nearest levels, importance moves errors; test_blocks compares with ggml's bytes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from gemmaq.encodings import ENCODINGS, codec, dequantize
from gemmaq.encodings.codebook_search import quantize, quantize_once
from gemmaq.methods import Choice
from gemmaq.methods import quantize as by_method
from oracles import ggml_rows, need_ggml

IQ4_NL = ENCODINGS["iq4_nl"]
LEVELS = np.array(IQ4_NL.codebook, np.float32)


def weights(rows: int = 70) -> np.ndarray:
    return (np.random.default_rng(4).standard_normal((rows, 96)) * 0.02).astype(np.float32)


def test_codes_are_the_nearest_levels_for_the_scale() -> None:
    x = weights()
    values = quantize(IQ4_NL, x)
    blocks, scales = x.reshape(-1, 32), values.scales.reshape(-1, 1).astype(np.float64)
    nearest = np.abs(blocks[:, :, None] / scales[:, :, None] - LEVELS).min(axis=2)
    chosen = np.abs(blocks / scales - LEVELS[values.codes.reshape(-1, 32)])
    assert np.allclose(chosen, nearest, atol=1e-5)


def test_it_errs_less_than_q4_0() -> None:
    x = weights()
    errors = {}
    for name in ("q4_0", "iq4_nl"):
        values = by_method(x, ENCODINGS[name], Choice("nearest"))
        errors[name] = np.square(dequantize(ENCODINGS[name], values) - x).sum()
    assert errors["iq4_nl"] < 0.85 * errors["q4_0"]


def test_importance_moves_the_error_to_columns_that_count_less() -> None:
    x, columns = weights(), np.ones(96, np.float32)
    columns[::4] = 100
    plain, weighed = (np.square(dequantize(IQ4_NL, quantize(IQ4_NL, x, c)) - x) for c in (None, columns))
    assert weighed[:, ::4].sum() < 0.9 * plain[:, ::4].sum()


def test_blocks_that_do_not_count_are_zero() -> None:
    x, columns = weights(), np.ones(96, np.float32)
    columns[32:64] = 0
    values = quantize(IQ4_NL, x, columns)
    assert (values.scales[:, 1] == 0).all() and (values.scales[:, ::2] != 0).all()
    assert (values.codes[:, 32:64] == 8).all()


def test_any_number_of_blocks_gives_the_same() -> None:
    x = weights()
    whole = codec(IQ4_NL).pack(quantize(IQ4_NL, x))
    parts = [codec(IQ4_NL).pack(quantize(IQ4_NL, x[a:b])) for a, b in ((0, 1), (1, 22), (22, 70))]
    assert np.array_equal(np.concatenate(parts), whole)


def test_iq4_xs_is_close_to_iq4_nl_in_fewer_bytes() -> None:
    x = (np.random.default_rng(4).standard_normal((8, 512)) * 0.02).astype(np.float32)
    errors = {}
    for name in ("iq4_nl", "iq4_xs"):
        values = by_method(x, ENCODINGS[name], Choice("nearest"))
        errors[name] = np.square(dequantize(ENCODINGS[name], values) - x).sum()
    assert errors["iq4_xs"] < 1.05 * errors["iq4_nl"]
    assert ENCODINGS["iq4_xs"].row_bytes(256) < 0.95 * ENCODINGS["iq4_nl"].row_bytes(256)


def test_weights_too_large_for_iq4_xs_do_not_become_zeros() -> None:
    loops = codec(ENCODINGS["iq4_xs"])
    with np.errstate(all="ignore"):
        values = loops.read(loops.pack(loops.nearest(np.full((1, 256), 1e37, np.float32))))
        assert not np.isfinite(dequantize(ENCODINGS["iq4_xs"], values)).any()


def test_without_the_search_codes_are_those_of_the_extreme_at_the_first_level() -> None:
    """As in a KV cache; scales then are least squares for these codes."""
    x = weights()
    values = quantize_once(IQ4_NL, x)
    blocks = x.reshape(-1, 32).astype(np.float64)
    extremes = np.take_along_axis(blocks, np.abs(blocks).argmax(1)[:, None], 1)
    codes = np.abs(blocks[:, :, None] * (LEVELS[0] / extremes)[:, :, None] - LEVELS).argmin(axis=2)
    assert (values.codes.reshape(-1, 32) == codes).mean() > 0.999
    levels = LEVELS[values.codes.reshape(-1, 32)].astype(np.float64)
    fitted = (blocks**3 * levels).sum(1) / (blocks**2 * levels**2).sum(1)
    np.testing.assert_allclose(values.scales.reshape(-1), fitted, rtol=1e-5)
    assert not quantize_once(IQ4_NL, np.full((1, 32), 1e-16, np.float32)).scales.any()


@pytest.mark.oracle
@pytest.mark.parametrize("name", ["q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"])
def test_bytes_are_those_that_ggml_writes_while_a_model_runs(require: Callable[[bool, str], None], name: str) -> None:
    need_ggml(require)
    encoding, random = ENCODINGS[name], np.random.default_rng(0)
    x = (random.standard_normal((300, 256)) * np.exp(random.standard_normal((300, 1)))).astype(np.float32)
    x[0] *= 1e-6
    loops = codec(encoding)
    quantize = loops.cached or loops.nearest
    assert quantize is not None and loops.pack is not None
    np.testing.assert_array_equal(loops.pack(quantize(x)), ggml_rows(name, x, encoding.row_bytes(256)))
