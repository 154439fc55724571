"""Packed blocks: the bytes of real ggml on real, random and odd weights, and the weights gguf-py reads from them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType
from gguf.quants import dequantize as gguf_dequantize
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from blocks import (
    FLOATS,
    K_QUANTS,
    LEVELS,
    QUANTIZED,
    SIGNED_K,
    decode,
    encode,
    ggml,
    odd_weights,
    same_bytes,
    same_weights,
    ties,
)
from gemmaq.encodings import ENCODINGS, Quantized, codec
from oracles import need_ggml
from synthetic import bf16

REAL = (
    "model.embed_tokens.weight",
    "model.layers.0.self_attn.k_proj.weight",
    "model.layers.5.mlp.down_proj.weight",
    "model.layers.17.self_attn.o_proj.weight",
)


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


@pytest.mark.oracle
@pytest.mark.parametrize("name", QUANTIZED)
def test_real_weights_get_the_bytes_of_ggml(real_ggml, real_weights, name):
    for x in real_weights.values():
        same_bytes(encode(name, x), ggml(name, x), x)


@pytest.mark.oracle
@pytest.mark.parametrize("kind", odd_weights())
@pytest.mark.parametrize("name", QUANTIZED)
def test_odd_weights_get_the_bytes_of_ggml(real_ggml, name, kind):
    if name == "iq4_xs" and kind in ("huge", "largest bf16"):
        return  # ggml stores zeros, see test_iquants
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
    if name == "iq4_xs":
        scales = random.integers(-32, 32, (rows, blocks * 8)).astype(np.float32)
        values = Quantized(codes, scales, supers=halves(blocks))
    elif name in SIGNED_K:
        low = {"q6_k": -128, "q3_k": -32}[name]
        scales = random.integers(low, -low, (rows, blocks * 16)).astype(np.float32)
        values = Quantized(codes, scales, supers=halves(blocks))
    elif name in K_QUANTS:
        top, groups = (16, 16) if name == "q2_k" else (64, 8)
        scales, minima = random.integers(0, top, (2, rows, blocks * groups)).astype(np.float32)
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
    step = np.float32({"q2_k": 15 / 128, "q4_k": 63 / 512, "q5_k": 63 / 512}.get(name, 1 / 8))  # 15 or 63 times an FP16
    levels = np.array(ENCODINGS[name].codebook or range(low, high + 1), np.float32)
    x = random.choice(levels, (32, 256)) * step
    x[:, ::16] = step * np.float32(low)
    x[:, 1::16] = step * np.float32(high)
    if name == "q2_k":  # zeros do not count in its search: with two other levels there may be more grids than one
        x[:, 2::16], x[:, 3::16] = step, step * np.float32(2)
    raw = encode(name, x)
    np.testing.assert_array_equal(decode(name, raw), x)
    np.testing.assert_array_equal(encode(name, decode(name, raw)), raw)
