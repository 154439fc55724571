"""Rounding to BF16 and FP16: the scalar of compiled loops and the array function agree with numpy, ties and all."""

from __future__ import annotations

import numpy as np
import pytest

from gemmaq.encodings import rounding


def numbers() -> np.ndarray:
    """F32 numbers around every exponent: random, halfway between two neighbours, and just beside that."""
    rng = np.random.default_rng(7)
    bits = rng.integers(0, 1 << 32, 20_000, np.uint32)
    ties = np.concatenate([bits & 0xFFFF0000 | 0x8000, bits & 0xFFFFE000 | 0x1000])
    values = np.concatenate([bits, ties, ties - 1, ties + 1]).view(np.float32)
    return np.concatenate([values[np.isfinite(values)], np.array([0.0, -0.0, 65504, 65519.9, 65520, 6e-8], np.float32)])


def test_arrays_in_fp16_are_numpys() -> None:
    with np.errstate(over="ignore"):
        assert rounding.as_f16(numbers()).tobytes() == numbers().astype(np.float16).astype(np.float32).tobytes()


def test_arrays_in_bf16_are_the_nearest_even() -> None:
    rounded = rounding.as_bf16(numbers())
    assert not (rounded.view(np.uint32) & 0xFFFF).any()
    low = (numbers().view(np.uint32) & 0xFFFF0000).view(np.float32)
    high = (low.view(np.uint32) + 0x10000).view(np.float32)
    beyond = ~np.isfinite(high)
    below, above = (np.abs(end.astype(np.float64) - numbers()) for end in (low, high))
    even = (low.view(np.uint32) >> 16) & 1 == 0
    expected = np.where((below < above) | ((below == above) & even), low, high)
    assert rounded[~beyond].tobytes() == expected[~beyond].tobytes()


@pytest.mark.parametrize(("scalar", "array"), [("round_bf16", "as_bf16"), ("round_f16", "as_f16")])
def test_loops_round_like_arrays(scalar: str, array: str) -> None:
    values = numbers()[np.abs(numbers()) < 65000]
    one = getattr(rounding, scalar)
    assert (
        np.array([one(value) for value in values], np.float32).tobytes() == getattr(rounding, array)(values).tobytes()
    )


def test_portable_numbers_are_held_by_both() -> None:
    portable = rounding.portable(numbers())
    held = np.abs(rounding.as_bf16(numbers())) <= 65504
    assert rounding.as_bf16(portable[held]).tobytes() == portable[held].tobytes()
    assert rounding.as_f16(portable[held]).tobytes() == portable[held].tobytes()
    assert portable[~held].tobytes() == numbers()[~held].tobytes()
    one = np.array([rounding.round_portable(value) for value in numbers()], np.float32)
    assert one.tobytes() == portable.tobytes()


def test_every_fp16_number_is_widened_as_numpy_does() -> None:
    bits = np.arange(1 << 16, dtype=np.uint16)
    wide = np.empty(bits.shape, np.float32)
    rounding.widen_f16(bits, wide)
    assert wide.tobytes() == bits.view(np.float16).astype(np.float32).tobytes()
