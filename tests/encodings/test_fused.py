"""Loops from BF16 to stored bytes: what widening, rounding to nearest and packing give one after the other."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemmaq.containers import gguf, mlx
from gemmaq.convert.compare_kernels import square_sums
from gemmaq.encodings import ENCODINGS, codec, dequantize
from gemmaq.encodings.bitstream import pack_codes, pack_scales

COLUMNS = 256
LARGEST = 0x477F
"""Bits of the largest BF16 number that FP16 holds."""


def blocks(name: str, bits: np.ndarray) -> tuple[np.ndarray, ...]:
    """The bytes of ggml's blocks, in steps."""
    loops = codec(ENCODINGS[name])
    assert loops.nearest is not None and loops.pack is not None
    return (loops.pack(loops.nearest(wide(bits))),)


def arrays(name: str, bits: np.ndarray) -> tuple[np.ndarray, ...]:
    """The arrays of MLX, in steps."""
    encoding = ENCODINGS[name]
    values = codec(encoding).nearest(wide(bits))
    packed = [pack_scales(encoding, "BF16", numbers) for numbers in (values.scales, values.minima)]
    return pack_codes(encoding.bits, values.codes), *packed


def wide(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << 16).view(np.float32)


CASES: dict[str, tuple[Callable[..., object], Callable[[str, np.ndarray], tuple[np.ndarray, ...]]]] = {
    "q4_0": (gguf.fused, blocks),
    "q8_0": (gguf.fused, blocks),
    **{f"affine4{group}": (mlx.fused, arrays) for group in ("", "-g64", "-g128")},
}


def odd_bits(rows: int = 70) -> np.ndarray:
    """BF16 bits of rows with blocks of every kind: u16 [rows, 256], finite."""
    rng = np.random.default_rng(5)
    bits = (rng.standard_normal((rows, COLUMNS)).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    bits[0], bits[1] = 0, 0x8000
    bits[2] = rng.choice([0, 0x8000], COLUMNS)
    bits[3] = 0x3F80
    bits[4] &= 0x807F  # subnormal
    bits[5] = rng.choice([0x3F80, 0xBF80], COLUMNS)  # extremes of one magnitude
    bits[6] = rng.integers(0, LARGEST + 1, COLUMNS)
    bits[7] = rng.integers(0, LARGEST + 1, COLUMNS) | 0x8000
    bits[8] = (rng.integers(-8, 8, COLUMNS).astype(np.float32) / 2).view(np.uint32) >> 16  # halves of codes
    bits[9, ::2] = 0
    return bits


def same(name: str, bits: np.ndarray) -> None:
    find, steps = CASES[name]
    fused = find(ENCODINGS[name])
    made, wanted = fused(bits), steps(name, bits)
    assert [array.dtype for array in made] == [np.uint8] * len(wanted)
    for one, other in zip(made, wanted, strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("name", CASES)
def test_odd_blocks_get_the_bytes_of_the_steps(name: str) -> None:
    with np.errstate(all="ignore"):
        same(name, odd_bits())


@pytest.mark.parametrize("name", CASES)
@given(data=st.data())
def test_any_bits_get_the_bytes_of_the_steps(name: str, data: st.DataObject) -> None:
    finite = st.integers(0, LARGEST) | st.integers(0x8000, 0x8000 | LARGEST)
    palette = data.draw(st.lists(finite, min_size=1, max_size=40))
    rows, seed = data.draw(st.integers(1, 3)), data.draw(st.integers(0, 1 << 32))
    same(name, np.random.default_rng(seed).choice(np.array(palette, np.uint16), (rows, COLUMNS)))


def test_containers_have_loops_for_the_layouts_that_are_their_own() -> None:
    assert mlx.fused(ENCODINGS["q4_0"]) is None
    assert gguf.fused(ENCODINGS["affine4"]) is codec(ENCODINGS["affine4"]).fused  # no GGUF holds it
    assert gguf.fused(ENCODINGS["q6_k"]) is None


@pytest.mark.parametrize("name", ["q4_0", "q8_0"])
def test_errors_are_those_of_the_decoded_blocks(name: str) -> None:
    loops, bits = codec(ENCODINGS[name]), odd_bits()
    assert loops.errors is not None and loops.read is not None
    (raw,) = gguf.fused(ENCODINGS[name])(bits)
    made = dequantize(ENCODINGS[name], loops.read(raw))
    wanted = square_sums(made, 0, wide(bits), 0)
    assert loops.errors(bits, raw) == pytest.approx(wanted, rel=1e-12)
    assert loops.errors(bits[:1], raw[:1]) == (0, 0)
    bits[0, 0] = 0x7F00  # its scale is infinite in FP16
    with np.errstate(all="ignore"):
        (raw,) = gguf.fused(ENCODINGS[name])(bits)
    assert loops.errors(bits, raw)[0] == math.inf
