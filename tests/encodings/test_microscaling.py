"""MXFP4 has the bytes of ggml, MXFP8 and NVFP4 have those of mlx; MXFP4 in MLX has the codes of ggml."""

from __future__ import annotations

import numpy as np
import pytest
from gguf import GGMLQuantizationType
from gguf.quants import dequantize as gguf_dequantize
from hypothesis import given, settings
from hypothesis import strategies as st

from blocks import decode, encode, ggml, odd_weights, same_bytes
from gemmaq.encodings import ENCODINGS, codec, dequantize
from gemmaq.encodings.bitstream import pack_codes, pack_scales, unpack_scales
from gemmaq.errors import InputError
from oracles import need, need_ggml
from synthetic import bf16

NAMES = ("mxfp4", "mxfp8", "nvfp4")
RULE_OF_MLX = ("mxfp8", "nvfp4")
ODD = {name: x for name, x in odd_weights().items() if name not in ("subnormal", "any magnitude")}
"""Without blocks whose exponent ggml wraps around, to scales of 2^120 and codes of 0."""


def weights(seed: int, spread: float = 0, exponent: int = -2, as_bf16: bool = False) -> np.ndarray:
    random = np.random.default_rng(seed)
    x = random.standard_normal((6, 192)) * 10.0 ** (exponent + spread * random.uniform(-1, 1, (6, 192)))
    x = x.astype(np.float32)
    x = np.clip(x, -2000, 2000)  # NVFP4 goes to 2688
    return (bf16(x).astype(np.uint32) << 16).view(np.float32) if as_bf16 else x


rows = st.builds(
    weights,
    seed=st.integers(0, 2**32 - 1),
    spread=st.sampled_from((0, 0, 1, 4)),
    exponent=st.integers(-20, 2),
    as_bf16=st.booleans(),
)
many = settings(max_examples=60, deadline=None, derandomize=True)


def ties(levels: tuple[float, ...]) -> np.ndarray:
    """Weights half-way between two levels, and the largest, which makes the scale a power of two."""
    positive = np.array(levels[: len(levels) // 2], np.float32)
    positive = positive[np.isfinite(positive)]
    middles = np.resize((positive[1:] + positive[:-1]) / 2, (8, 96)).astype(np.float32)
    middles[:, ::16] = positive[-1]
    middles[:, 1::2] *= -1
    return middles * np.exp2(np.arange(-4, 4, dtype=np.float32)).reshape(-1, 1)


@pytest.mark.oracle
def test_mxfp4_has_the_bytes_of_ggml(require) -> None:
    need_ggml(require)
    for x in (*ODD.values(), ties(ENCODINGS["mxfp4"].codebook)):
        same_bytes(encode("mxfp4", x), ggml("mxfp4", x), x)

    @many
    @given(rows)
    def check(x: np.ndarray) -> None:
        same_bytes(encode("mxfp4", x), ggml("mxfp4", x), x)

    check()


@pytest.mark.oracle
def test_logarithms_are_rounded_as_in_ggml(require) -> None:
    """Blocks whose largest weight is so close to a power of two that its logarithm in FP32 is that of the power."""
    need_ggml(require)
    steps = np.arange(-40, 41).reshape(-1, 1, 1) * 2.0**-24
    x = (np.exp2(np.arange(-60.0, 60.0)).reshape(1, -1, 1) * (1 + steps)).astype(np.float32)
    x = np.repeat(x.reshape(-1, 1), 32, axis=1)
    same_bytes(encode("mxfp4", x), ggml("mxfp4", x), x)


@pytest.mark.oracle
@pytest.mark.parametrize("name", RULE_OF_MLX)
def test_codes_and_scales_are_those_of_mlx(name: str, require) -> None:
    need(require, "mlx")
    import mlx.core as mx

    encoding = ENCODINGS[name]

    def check(x: np.ndarray) -> None:
        codes, scales = mx.quantize(mx.array(x), mode=name)
        ours = codec(encoding).nearest(x)
        np.testing.assert_array_equal(pack_scales(encoding, "U8", ours.scales), np.array(scales))
        np.testing.assert_array_equal(pack_codes(encoding.bits, ours.codes), np.array(codes).view(np.uint8))

    for x in (np.zeros((2, 64), np.float32), -np.zeros((2, 64), np.float32), ties(encoding.codebook)):
        check(x)
    many(given(rows)(check))()


@pytest.mark.oracle
@pytest.mark.parametrize("name", NAMES)
def test_mlx_reads_the_weights_that_gemmaq_means(name: str, require) -> None:
    need(require, "mlx")
    import mlx.core as mx

    encoding, x = ENCODINGS[name], weights(1)
    values = codec(encoding).nearest(x)
    words = mx.array(pack_codes(encoding.bits, values.codes)).view(mx.uint32)
    scales = mx.array(pack_scales(encoding, "U8", values.scales))
    theirs = mx.dequantize(words, scales, mode=name, dtype=mx.float32)
    np.testing.assert_array_equal(dequantize(encoding, values), np.array(theirs))


def test_any_bytes_of_mxfp4_read_as_gguf_py_reads_them() -> None:
    raw = np.random.default_rng(3).integers(0, 256, (64, ENCODINGS["mxfp4"].row_bytes(256)), np.uint8)
    raw[:, ::17] = np.minimum(raw[:, ::17], 250)  # larger weights overflow; 255 is NaN by the specification only
    theirs = gguf_dequantize(raw, GGMLQuantizationType.MXFP4)
    np.testing.assert_array_equal(decode("mxfp4", raw), theirs)


@pytest.mark.parametrize("name", NAMES)
def test_scales_survive_packing(name: str) -> None:
    encoding = ENCODINGS[name]
    raw = np.arange(126 if encoding.scales == "e4m3" else 255, dtype=np.uint8).reshape(1, -1)
    np.testing.assert_array_equal(pack_scales(encoding, "U8", unpack_scales(encoding, "U8", raw)), raw)


@pytest.mark.parametrize("name", NAMES)
@many
@given(rows)
def test_quantizing_again_changes_no_weight(name: str, x: np.ndarray) -> None:
    encoding = ENCODINGS[name]
    once = dequantize(encoding, codec(encoding).nearest(x))
    if name == "nvfp4":  # where 6 is reached, so that the scale is found again
        x = np.where(np.abs(once) == np.abs(once).max(), once, x).astype(np.float32)
        once = dequantize(encoding, codec(encoding).nearest(x))
    again = dequantize(encoding, codec(encoding).nearest(once))
    assert np.abs(again - once).max() <= np.abs(x - once).max()


@pytest.mark.oracle
def test_fp8_has_the_codes_of_torch_for_a_scale_a_row(require) -> None:
    need(require, "torch")
    import torch

    x = weights(6, spread=2)
    values = codec(ENCODINGS["fp8"]).nearest(x)
    scales = torch.from_numpy(values.scales)
    assert values.scales.shape == (6, 1) and (scales == scales.bfloat16().float()).all()
    theirs = (torch.from_numpy(x) * (1 / scales)).clamp(-448, 448).to(torch.float8_e4m3fn).view(torch.uint8)
    np.testing.assert_array_equal(values.codes, theirs.numpy())
    zero = codec(ENCODINGS["fp8"]).nearest(np.zeros((1, 32), np.float32))
    assert not dequantize(ENCODINGS["fp8"], zero).any()


def test_no_weight_is_clipped_by_the_rule_of_mlx() -> None:
    for name in RULE_OF_MLX:
        encoding, x = ENCODINGS[name], weights(5, exponent=0)
        errors = np.abs(dequantize(encoding, codec(encoding).nearest(x)) - x).reshape(-1, encoding.block)
        assert (errors.max(axis=1) <= np.abs(x).reshape(-1, encoding.block).max(axis=1) / 5).all()


def test_tiny_blocks_keep_their_sign_and_size() -> None:
    x = np.full((1, 32), -1e-38, np.float32)
    once = dequantize(ENCODINGS["mxfp4"], codec(ENCODINGS["mxfp4"]).nearest(x))
    assert np.allclose(once, x, rtol=0.3, atol=0)


def test_weights_beyond_the_largest_of_nvfp4_are_refused() -> None:
    x = np.full((1, 16), 3000, np.float32)
    with pytest.raises(InputError, match="beyond 2688"):
        codec(ENCODINGS["nvfp4"]).nearest(x)
