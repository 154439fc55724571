"""Rounding to small floating point numbers is exact at every number and between all of them."""

from __future__ import annotations

import math

import numpy as np

from gemmaq.encodings.microscaling_kernels import nearest_mxfp4, nearest_nvfp4, round_to_e4m3, to_e4m3
from gemmaq.encodings.small_floats import E4M3

LEVELS = np.array(E4M3[:127], np.float32)


def rounded(numbers: np.ndarray) -> np.ndarray:
    out = np.empty(numbers.size, np.uint8)
    to_e4m3(numbers.astype(np.float32), out)
    return out


def test_every_number_has_its_code() -> None:
    codes = np.arange(127, dtype=np.uint8)
    np.testing.assert_array_equal(rounded(LEVELS), codes)
    np.testing.assert_array_equal(rounded(-LEVELS), codes + 128)


def test_between_two_numbers_the_nearer_is_taken_and_the_even_code_half_way() -> None:
    low = np.arange(126, dtype=np.uint8)
    middles = (LEVELS[1:] + LEVELS[:-1]) / 2
    np.testing.assert_array_equal(rounded(np.nextafter(middles, np.float32(0))), low)
    np.testing.assert_array_equal(rounded(np.nextafter(middles, np.float32(1e9))), low + 1)
    np.testing.assert_array_equal(rounded(middles), low + low % 2)


def test_numbers_beyond_the_largest_become_the_largest() -> None:
    np.testing.assert_array_equal(rounded(np.array([448, 460, 1e9, 3e38, -1e9])), [126, 126, 126, 126, 254])


def test_a_scale_of_zero_gives_zeros() -> None:
    codes = np.empty((1, 4), np.uint8)
    round_to_e4m3(np.array([[1, -2, 0, 3]], np.float32), np.zeros(1, np.float32), codes)
    assert set((codes & 127).reshape(-1)) == {0}


def test_small_blocks_have_finer_scales_in_a_smaller_unit() -> None:
    x = np.random.default_rng(0).standard_normal((200, 16)).astype(np.float32) * np.float32(0.005)
    errors = []
    for unit in (1, 64):
        codes, scales = np.empty(x.shape, np.uint8), np.empty(len(x), np.float32)
        nearest_nvfp4(x, np.float32(unit), codes, scales)
        assert set((scales * unit).tolist()) <= set(LEVELS.tolist())
        levels = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)
        errors.append(np.square(levels[codes] * scales.reshape(-1, 1) - x).sum())
    assert errors[1] < 0.6 * errors[0]


def test_the_scale_of_a_block_follows_the_logarithm_as_fp32_has_it() -> None:
    mantissas = np.r_[0, 1, 0x400000, np.arange(0x7FFFFF - 80, 0x800000)].astype(np.uint32)
    exponents = np.arange(3, 255, dtype=np.uint32)  # with smaller ones the scale is the smallest there is
    peaks = ((exponents[:, None] << np.uint32(23)) | mantissas).reshape(-1, 1).view(np.float32)
    codes, scales = np.empty(peaks.shape, np.uint8), np.empty(len(peaks), np.float32)
    nearest_mxfp4(peaks, codes, scales)
    logarithms = [math.floor(np.float32(math.log2(float(peak)))) for peak in peaks[:, 0]]
    np.testing.assert_array_equal(scales, [2.0 ** (at - 2) for at in logarithms])
