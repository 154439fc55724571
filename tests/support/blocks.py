"""Rows of weights at the ends of what a type must handle, and their bytes by gemmaq and by ggml."""

from __future__ import annotations

import numpy as np
from gguf import GGMLQuantizationType
from gguf.quants import dequantize as gguf_dequantize

from gemmaq.encodings import ENCODINGS, codec, dequantize
from oracles import ggml_quantize

LEGACY = ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0")
K_QUANTS = ("q6_k", "q4_k", "q5_k", "q3_k", "q2_k")
SIGNED_K = ("q6_k", "q3_k")
CODEBOOKS = ("iq4_nl", "iq4_xs")
GRIDS = ("iq3_s", "iq3_xxs", "iq2_s", "iq2_xs", "iq2_xxs")
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
    "q3_k": (-4, 3),
    "q2_k": (0, 3),
    "iq4_nl": (-127, 113),
    "iq4_xs": (-127, 113),
}
"""Type -> the ends of the levels that its own rule can reach, as multiples of the scale."""


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


def reads_as_gguf_py(name: str) -> None:
    """Check that any bytes of a type with a grid mean what they mean to gguf-py."""
    raw = np.random.default_rng(11).integers(0, 256, (64, ENCODINGS[name].row_bytes(1024)), np.uint8)
    with np.errstate(all="ignore"):
        theirs = gguf_dequantize(raw, GGMLQuantizationType[name.upper()])
    same_weights(decode(name, raw), theirs)


def survives_packing(name: str) -> None:
    """Check that any bytes of a type with a grid, their scales finite, come back from reading and packing."""
    encoding, random = ENCODINGS[name], np.random.default_rng(12)
    blocks = random.integers(0, 256, (63, encoding.block_bytes), np.uint8)
    blocks[:, :2] = random.standard_normal((63, 1)).astype("<f2").view(np.uint8)
    raw = blocks.reshape(21, -1)
    loops = codec(encoding)
    assert loops.read is not None and loops.pack is not None
    values = loops.read(raw)
    assert values.codes.shape == (21, 768) and values.codes.max() < len(encoding.codebook)
    assert np.array_equal(loops.pack(values), raw)
