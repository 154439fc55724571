"""compressed-tensors' symmetric integers: codes and scales are the library's, and importance errs less."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import runtimes
from gemmaq.encodings import ENCODINGS, codec, dequantize
from gemmaq.methods import Choice, Importance, quantize
from grids import wide
from runtimes import need
from synthetic import bf16

NAMES = ("int4-g64", "int4-g128", "int4-channel", "int8-channel")


def by_the_library(name: str, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Signed codes and BF16 scales of a min-max observer."""
    import torch
    from compressed_tensors.quantization import QuantizationArgs
    from compressed_tensors.quantization.lifecycle.forward import quantize as round_off
    from compressed_tensors.quantization.utils.helpers import calculate_qparams

    encoding = ENCODINGS[name]
    strategy = {"strategy": "group", "group_size": encoding.block} if encoding.block else {"strategy": "channel"}
    args = QuantizationArgs(num_bits=encoding.bits, symmetric=True, **strategy)
    groups = torch.from_numpy(x).reshape(len(x), -1, encoding.group(x.shape[1]))
    scales, zeros = calculate_qparams(groups.amin(dim=2), groups.amax(dim=2), args)
    scales = torch.where(scales.bfloat16() == 0, 2.0**-23, scales.bfloat16().float())
    return round_off(torch.from_numpy(x), scales, zeros, args).numpy(), scales.numpy()


def same_as_the_library(name: str, x: np.ndarray) -> None:
    ours = codec(ENCODINGS[name]).nearest(x)
    codes, scales = by_the_library(name, x)
    np.testing.assert_array_equal(ours.scales, scales)
    np.testing.assert_array_equal(ours.codes.astype(np.float32) - ENCODINGS[name].zero, codes)


ROWS = arrays(np.float32, (2, 256), elements=st.floats(-1e4, 1e4, width=32), fill=st.floats(-1, 1, width=32))


@pytest.mark.oracle
@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=60)
@given(x=ROWS)
def test_codes_of_any_weights_are_those_of_the_library(name: str, x: np.ndarray, require: runtimes.Require) -> None:
    need(require, "compressed_tensors")
    same_as_the_library(name, x)


@pytest.mark.oracle
@pytest.mark.parametrize("name", NAMES)
def test_codes_of_usual_weights_are_those_of_the_library(name: str, require: runtimes.Require) -> None:
    need(require, "compressed_tensors")
    x = wide(bf16(np.random.default_rng(0).standard_normal((64, 640)) * 0.02))
    same_as_the_library(name, x)


def weighed_error(name: str, x: np.ndarray, columns: np.ndarray, values) -> np.ndarray:
    """Squares weighed by column and size, by group."""
    encoding = ENCODINGS[name]
    off = dequantize(encoding, values).astype(np.float64) - x
    sizes = np.sqrt(np.square(x, dtype=np.float64).mean(axis=1, keepdims=True) + np.square(x, dtype=np.float64))
    return (columns * sizes * np.square(off)).reshape(-1, encoding.group(x.shape[1])).sum(axis=1)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["usual", "far out", "zeros", "tiny", "unseen"])
def test_importance_errs_no_more_than_nearest(name: str, kind: str) -> None:
    random = np.random.default_rng(1)
    x = (random.standard_normal((33, 640)) * 0.02).astype(np.float32)
    columns = np.exp(random.standard_normal(640)).astype(np.float32)
    if kind == "far out":
        x[:, ::97] *= 30
    x *= {"zeros": 0, "tiny": 1e-35}.get(kind, 1)
    columns[::2] *= kind != "unseen"
    encoding, chosen = ENCODINGS[name], Choice("importance", importance=Importance(columns))
    ours, usual = quantize(x, encoding, chosen), quantize(x, encoding, Choice("nearest"))
    assert ours.codes.max() < 1 << encoding.bits and ours.scales.shape == (33, 640 // encoding.group(640))
    np.testing.assert_array_equal(wide(bf16(ours.scales)), ours.scales)
    mine, known = weighed_error(name, x, columns, ours), weighed_error(name, x, columns, usual)
    assert (mine <= known * 1.0001).all()
    if encoding.bits == 4 and kind in ("usual", "far out"):
        assert mine.sum() < (0.8 if kind == "usual" else 0.95) * known.sum()
    for first in (0, 7, 32):  # rows do not depend on each other
        alone = quantize(x[first : first + 1], encoding, chosen)
        np.testing.assert_array_equal(alone.codes, ours.codes[first : first + 1])
        np.testing.assert_array_equal(alone.scales, ours.scales[first : first + 1])


def test_a_row_is_one_block() -> None:
    for name, size in (("int4-channel", 640 // 2 + 2), ("int8-channel", 640 + 2)):
        encoding = ENCODINGS[name]
        assert (encoding.group(640), encoding.row_bytes(640), encoding.multiple) == (640, size, 32)
        assert encoding.fits(96) and not encoding.fits(80)
    assert (ENCODINGS["int4-g64"].group(640), ENCODINGS["int4-g64"].row_bytes(640)) == (64, 10 * 34)
