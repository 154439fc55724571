"""Blocks of 32 weights in compiled loops: every operation as numpy does it, lane by lane."""

from __future__ import annotations

import numpy as np

from gemmaq.encodings import block_vectors as blocks
from gemmaq.encodings.block_vectors import BLOCK
from gemmaq.jit import compiled

BITS = np.random.default_rng(2).integers(0, 0x4300, 40).astype(np.uint16)
BITS[10::3] |= 0x8000
OWN = BITS[8 : 8 + BLOCK]
X = (OWN.astype(np.uint32) << 16).view(np.float32)


@compiled
def ends(bits: np.ndarray, out: np.ndarray) -> None:
    block = blocks.load_bits(bits, 8)
    out[0], out[1] = blocks.smallest(block), blocks.largest(block)
    out[2] = blocks.largest_magnitude(block)


@compiled
def codes(bits: np.ndarray, out: np.ndarray) -> None:
    x = blocks.numbers(blocks.load_bits(bits, 8))
    whole = blocks.truncated(x)
    blocks.store_bytes(out, 0, blocks.at_most(blocks.at_least(whole, np.int32(-3)), np.int32(5)))
    blocks.store_bytes(out, 32, blocks.truncated(blocks.to_even(x / np.float32(4))))
    blocks.store_bytes(out, 64, blocks.reached(x - blocks.floats(whole), np.float32(0.5)))
    blocks.store_nibbles(out, 96, whole)
    blocks.store_pairs(out, 112, whole)


@compiled
def back(raw: np.ndarray, out: np.ndarray) -> np.float64:
    blocks.store_bytes(out, 0, blocks.load_bytes(raw, 1))
    blocks.store_bytes(out, 32, blocks.load_nibbles(raw, 1))
    x = blocks.doubles(blocks.floats(blocks.load_bytes(raw, 1)))
    return blocks.total(x * x)


def test_bytes_and_halves_are_read_back() -> None:
    raw, out = np.random.default_rng(4).integers(0, 256, 40).astype(np.uint8), np.empty(64, np.uint8)
    total = back(raw, out)
    assert np.array_equal(out[:32], raw[1:33])
    assert np.array_equal(out[32:], np.concatenate([raw[1:17] & 15, raw[1:17] >> 4]))
    assert total == np.square(raw[1:33].view(np.int8).astype(float)).sum()


def test_ends_are_those_of_the_numbers() -> None:
    out = np.empty(3, np.float32)
    ends(BITS, out)
    assert out.tolist() == [X.min(), X.max(), np.abs(X).max()]


def test_minus_zero_is_below_zero() -> None:
    out = np.empty(3, np.float32)
    ends(np.array([0, 0x8000] * 20, np.uint16), out)
    assert np.signbit(out).tolist() == [True, False, False]


def test_codes_are_bytes_of_whole_numbers() -> None:
    out = np.empty(128, np.uint8)
    codes(BITS, out)
    whole = np.trunc(X).astype(np.int32)
    assert np.array_equal(out[:32].view(np.int8), np.clip(whole, -3, 5))
    assert np.array_equal(out[32:64].view(np.int8), np.rint(X / 4).astype(np.int8))
    assert np.array_equal(out[64:96], X - whole >= 0.5)
    low = whole.astype(np.uint32)
    assert np.array_equal(out[96:112], (low[:16] | low[16:] << 4).astype(np.uint8))
    assert np.array_equal(out[112:], (low[::2] | low[1::2] << 4).astype(np.uint8))
