"""Packed blocks: the bytes of real ggml on real, random and odd weights, and the weights gguf-py reads from them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType
from gguf.quants import dequantize as gguf_dequantize
from gguf.quants import quantize as gguf_quantize
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gemmaq.encodings import ENCODINGS, Quantized, codec, dequantize
from oracles import ggml_quantize, need, need_ggml
from synthetic import bf16

LEGACY = ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0")
K_QUANTS = ("q6_k", "q4_k", "q5_k")
CODEBOOKS = ("iq4_nl",)
QUANTIZED = (*LEGACY, *K_QUANTS, *CODEBOOKS)
FLOATS = ("f32", "f16", "bf16")

LEVELS = {
    "q4_0": (-8, 7),
    "q4_1": (0, 15),
    "q5_0": (-16, 15),
    "q5_1": (0, 31),
    "q8_0": (-127, 127),
    "q6_k": (-32, 31),
    "q4_k": (0, 15),
    "q5_k": (0, 31),
    "iq4_nl": (-127, 113),
}
"""Type -> the ends of the levels that its own rule can reach, as multiples of the scale."""

REAL = (
    "model.embed_tokens.weight",
    "model.layers.0.self_attn.k_proj.weight",
    "model.layers.5.mlp.down_proj.weight",
    "model.layers.17.self_attn.o_proj.weight",
)


def encode(name: str, x: np.ndarray) -> np.ndarray:
    """F32 rows -> packed rows, as gemmaq has them."""
    loops = codec(ENCODINGS[name])
    return loops.pack(loops.nearest(np.ascontiguousarray(x, np.float32)))


def decode(name: str, raw: np.ndarray) -> np.ndarray:
    """Packed rows -> f32 rows, as gemmaq has them."""
    with np.errstate(all="ignore"):
        return dequantize(ENCODINGS[name], codec(ENCODINGS[name]).read(raw))


def ggml(name: str, x: np.ndarray) -> np.ndarray:
    """F32 rows -> packed rows, as ggml has them."""
    encoding = ENCODINGS[name]
    return ggml_quantize(encoding.ggml_type, x, encoding.row_bytes(x.shape[1]))


def same_weights(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Equal bit for bit, but for what a NaN carries."""
    both_nan = np.isnan(ours) & np.isnan(theirs)
    wrong = (ours.view(np.uint32) != theirs.view(np.uint32)) & ~both_nan
    assert ours.shape == theirs.shape and not wrong.any(), np.argwhere(wrong)[:5]


def same_bytes(ours: np.ndarray, theirs: np.ndarray, x: np.ndarray) -> None:
    wrong = (ours != theirs).any(axis=1)
    assert not wrong.any(), f"{wrong.sum()} rows differ, the first is {x[wrong.argmax()].tolist()}"


@pytest.fixture(scope="session")
def real_ggml(require) -> None:
    need_ggml(require)


@pytest.fixture(scope="session")
def real_weights(sample_bf16: Path) -> dict[str, np.ndarray]:
    """A few tensors of the real 270M in blocks of 256, read without gemmaq."""
    with (sample_bf16 / "model.safetensors").open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        result = {}
        for name in REAL:
            begin, end = header[name]["data_offsets"]
            file.seek(8 + size + begin)
            bits = np.frombuffer(file.read(min(end - begin, 1 << 22)), "<u2").astype(np.uint32) << 16
            result[name] = bits.view(np.float32).reshape(-1, 256)
    return result


def ties(name: str) -> np.ndarray:
    """Blocks of 256 whose scale is a power of two and whose weights lie halfway between two levels."""
    low, high = LEVELS[name]
    random = np.random.default_rng(5)
    if name in CODEBOOKS:
        levels = np.array(ENCODINGS[name].codebook, np.float32)
        x = random.choice((levels[1:] + levels[:-1]) / 2, (64, 256))
    else:
        x = random.integers(low, high, (64, 256)).astype(np.float32) + np.float32(0.5)
    x[:, ::16], x[:, 1::16] = low, high
    scale = np.exp2(random.integers(-9, 9, (64, 1))).astype(np.float32)
    sign = np.where(random.random((64, 1)) < 0.5, -1, 1).astype(np.float32)
    return x * scale * sign


def odd_weights() -> dict[str, np.ndarray]:
    """Blocks at the ends of what a rule must handle."""
    random = np.random.default_rng(7)
    normal = random.standard_normal((64, 1024), np.float32)
    one = np.zeros((4, 512), np.float32)
    one[0, 5], one[1, 300], one[2, 511], one[3, 0] = 3, -2, 1e-3, -1e-3
    both = normal[:16, :512].copy()
    both[:8, ::16], both[:8, 1::16] = 5, -5
    both[8:, ::16], both[8:, 1::16] = -5, 5
    largest = np.uint32(0x7F7F0000).view(np.float32)
    outlier = normal * np.float32(0.02)
    outlier[::2, 77::256], outlier[1::2, 77::256] = 40, -40
    flat = np.repeat(normal[:, :32], 32, axis=1)  # every group of 32 a constant of its own
    return {
        "all zero": np.zeros((2, 256), np.float32),
        "negative zero": -np.zeros((2, 256), np.float32),
        "one value": one,
        "constant": np.full((2, 256), 0.7, np.float32),
        "negative constant": np.full((2, 256), -0.7, np.float32),
        "both ends alike": both,
        "one outlier": outlier,
        "all positive": abs(normal),
        "all negative": -abs(normal),
        "far from zero": normal * np.float32(1e-3) - 1,
        "far above zero": normal * np.float32(1e-3) + 1,
        "flat": flat,
        "on a grid": random.integers(-8, 8, (256, 1024)).astype(np.float32) / 8,
        "subnormal": normal * np.float32(1e-40),
        "around 1e-15": normal * np.float32(1e-15),
        "any magnitude": (normal * 10.0 ** random.uniform(-44, -3, normal.shape)).astype(np.float32),
        "scales around the largest fp16": normal * 10.0 ** random.uniform(4, 8, (64, 1)).astype(np.float32),
        "huge": normal * np.float32(1e37),
        "largest bf16": np.where(normal < 0, -largest, largest),
    }


@pytest.mark.oracle
@pytest.mark.parametrize("name", QUANTIZED)
def test_real_weights_get_the_bytes_of_ggml(real_ggml, real_weights, name):
    for x in real_weights.values():
        same_bytes(encode(name, x), ggml(name, x), x)


@pytest.mark.oracle
@pytest.mark.parametrize("kind", odd_weights())
@pytest.mark.parametrize("name", QUANTIZED)
def test_odd_weights_get_the_bytes_of_ggml(real_ggml, name, kind):
    x = odd_weights()[kind]
    same_bytes(encode(name, x), ggml(name, x), x)


@pytest.mark.oracle
@pytest.mark.parametrize("name", QUANTIZED)
def test_weights_halfway_between_levels_get_the_bytes_of_ggml(real_ggml, name):
    x = ties(name)
    same_bytes(encode(name, x), ggml(name, x), x)


@pytest.mark.oracle
@pytest.mark.parametrize("name", QUANTIZED)
def test_random_weights_get_the_bytes_of_ggml(real_ggml, name):
    @settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(
        seed=st.integers(0, 2**32 - 1),
        rows=st.integers(1, 40),
        blocks=st.integers(1, 6),
        exponent=st.integers(-42, 3),  # more overflows the FP16 scale, and is refused before it is written
        spread=st.sampled_from((0, 0, 0, 1, 4)),
        zeros=st.sampled_from((0, 0, 0.5, 0.99)),
        as_bf16=st.booleans(),
    )
    @example(seed=0, rows=300, blocks=8, exponent=-2, spread=0, zeros=0, as_bf16=True)
    def check(seed: int, rows: int, blocks: int, exponent: int, spread: int, zeros: float, as_bf16: bool) -> None:
        random = np.random.default_rng(seed)
        shape = (rows, blocks * ENCODINGS[name].block)
        x = random.standard_normal(shape) * 10.0 ** (exponent + spread * random.uniform(-1, 1, shape))
        x = np.where(random.random(shape) < zeros, 0, x).astype(np.float32)
        if as_bf16:
            x = (bf16(x).astype(np.uint32) << 16).view(np.float32)
        same_bytes(encode(name, x), ggml(name, x), x)

    check()


@pytest.mark.parametrize("kind", ("normal", "ties", "on a grid", "all zero", "one value"))
@pytest.mark.parametrize("name", LEGACY)
def test_weights_get_the_bytes_of_gguf_py(name, kind):
    normal = np.random.default_rng(3).standard_normal((256, 1024), np.float32)
    x = {"normal": normal, "ties": ties(name), **odd_weights()}[kind]
    with np.errstate(all="ignore"):
        same_bytes(encode(name, x), gguf_quantize(x, GGMLQuantizationType[name.upper()]), x)


@pytest.mark.parametrize("name", (*QUANTIZED, *FLOATS))
def test_any_bytes_read_as_gguf_py_reads_them(name):
    encoding = ENCODINGS[name]
    raw = np.random.default_rng(11).integers(0, 256, (64, encoding.row_bytes(1024)), np.uint8)
    with np.errstate(all="ignore"):
        theirs = gguf_dequantize(raw, GGMLQuantizationType[name.upper()])
    same_weights(decode(name, raw), theirs)


@pytest.mark.oracle
@pytest.mark.parametrize("name", K_QUANTS)
def test_real_k_quants_read_as_gguf_py_reads_them(real_ggml, real_weights, name):
    raw = ggml(name, real_weights[REAL[2]])
    same_weights(decode(name, raw), gguf_dequantize(raw, GGMLQuantizationType[name.upper()]))


@pytest.mark.parametrize("name", QUANTIZED)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 9), blocks=st.integers(1, 5))
def test_codes_and_scales_survive_packing(name, seed, rows, blocks):
    encoding = ENCODINGS[name]
    random = np.random.default_rng(seed)

    def halves(columns: int) -> np.ndarray:
        return (random.standard_normal((rows, columns)) / 8).astype(np.float16).astype(np.float32)

    codes = random.integers(0, 1 << encoding.bits, (rows, blocks * encoding.block), np.uint8)
    if name == "q6_k":
        scales = random.integers(-128, 128, (rows, blocks * 16)).astype(np.float32)
        values = Quantized(codes, scales, supers=halves(blocks))
    elif name in K_QUANTS:
        scales, minima = random.integers(0, 64, (2, rows, blocks * 8)).astype(np.float32)
        values = Quantized(codes, scales, minima, halves(blocks), halves(blocks))
    else:
        values = Quantized(codes, halves(blocks), halves(blocks) if name.endswith("_1") else None)
    loops = codec(encoding)
    packed = loops.pack(values)
    assert packed.shape == (rows, encoding.row_bytes(codes.shape[1]))
    again = loops.read(packed)
    for part in ("codes", "scales", "minima", "supers", "super_minima"):
        np.testing.assert_array_equal(getattr(again, part), getattr(values, part), part)


@pytest.mark.parametrize("name", QUANTIZED)
def test_requantizing_an_exact_lattice_changes_nothing(name):
    low, high = LEVELS[name]
    random = np.random.default_rng(2)
    step = np.float32(63 / 512 if low == 0 and name in K_QUANTS else 1 / 8)  # 63 times an FP16 number, where it must be
    levels = np.array(ENCODINGS[name].codebook or range(low, high + 1), np.float32)
    x = random.choice(levels, (32, 256)) * step
    x[:, ::16] = step * np.float32(low)
    x[:, 1::16] = step * np.float32(high)
    raw = encode(name, x)
    np.testing.assert_array_equal(decode(name, raw), x)
    np.testing.assert_array_equal(encode(name, decode(name, raw)), raw)


def bit_patterns() -> np.ndarray:
    """Random F32 of every exponent, and all neighbours of the halfway points of BF16 and F16; no NaN."""
    random = np.random.default_rng(13)
    anything = random.integers(0, 1 << 32, 1 << 18, np.uint32)
    top = random.integers(0, 1 << 16, 1 << 12, np.uint32) << 16
    near_bf16 = (top[:, None] | np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)).reshape(-1)
    near_f16 = (top[:, None] | np.array([0xFFF, 0x1000, 0x1001, 0x2FFF, 0x3000, 0x3001], np.uint32)).reshape(-1)
    x = np.concatenate([anything, near_bf16, near_f16]).view(np.float32)
    return np.resize(x[~np.isnan(x)], (64, 4096))


@pytest.mark.oracle
@pytest.mark.parametrize("name", ("bf16", "f16"))
def test_floats_round_as_torch_rounds(require, name):
    need(require, "torch")
    import torch

    x = bit_patterns()
    rounded = torch.from_numpy(x).to({"bf16": torch.bfloat16, "f16": torch.float16}[name])
    raw = encode(name, x)
    np.testing.assert_array_equal(raw.view(np.int16), rounded.view(torch.int16).numpy())
    same_weights(decode(name, raw), rounded.float().numpy())


@pytest.mark.parametrize("name", FLOATS)
def test_floats_round_as_gguf_py_rounds(name):
    x = bit_patterns()
    with np.errstate(all="ignore"):
        theirs = gguf_quantize(x, GGMLQuantizationType[name.upper()])
    np.testing.assert_array_equal(encode(name, x), theirs.view(np.uint8).reshape(len(x), -1))
