"""Compiled loops between codes, one a byte, and the bytes of files: ggml's blocks and streams of bits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gemmaq.jit import compiled

if TYPE_CHECKING:
    from gemmaq.encodings import U8

_NIBBLES = np.uint16(0x0F0F)
_SIGNS = np.uint16(0x8080)


def pack_nibbles(head: U8, codes: U8, at: int, out: U8) -> None:
    """Blocks u8 [blocks, at + 16]: head u8 [blocks, h] first, the low four bits of codes u8 [blocks, 32] from `at` on.

    Byte j holds code j in its low half and code j + 16 in its high half.
    """
    if at % 2 or head.shape[1] % 2 or out.shape[1] % 2:
        _pack_nibbles(head, codes, at, out)
    else:
        _pack_pairs_of_nibbles(head.view(np.uint16), codes.view(np.uint16), at // 2, out.view(np.uint16))


@compiled
def _pack_nibbles(head: Any, codes: Any, at: Any, out: Any) -> None:
    for b in range(codes.shape[0]):
        for j in range(head.shape[1]):
            out[b, j] = head[b, j]
        for j in range(16):
            out[b, at + j] = (codes[b, j] & 15) | (codes[b, j + 16] << 4)


@compiled
def _pack_pairs_of_nibbles(head: Any, codes: Any, at: Any, out: Any) -> None:
    """`pack_nibbles` with two bytes in each u16: half the work."""
    half, at = codes.shape[1] // 2, max(at, 0)  # an index that may be negative is not vectorised
    for b in range(codes.shape[0]):
        for j in range(head.shape[1]):
            out[b, j] = head[b, j]
        for j in range(half):
            low = np.uint16(codes[b, j] & _NIBBLES)
            high = np.uint16(np.uint16(codes[b, j + half] & _NIBBLES) << np.uint16(4))
            out[b, at + j] = np.uint16(low | high)


def pack_bytes(head: U8, codes: U8, out: U8) -> None:
    """Q8_0 blocks: head u8 [blocks, 2], then codes u8 [blocks, 32] as signed bytes around 0 instead of 128."""
    _pack_pairs_of_bytes(head.view(np.uint16), codes.view(np.uint16), out.view(np.uint16))


@compiled
def _pack_pairs_of_bytes(head: Any, codes: Any, out: Any) -> None:
    for b in range(codes.shape[0]):
        out[b, 0] = head[b, 0]
        for j in range(codes.shape[1]):
            out[b, 1 + j] = np.uint16(codes[b, j] ^ _SIGNS)


def unpack_bytes(raw: U8, at: int, codes: U8) -> None:
    """The reverse of `pack_bytes`: codes around 128 from `at` on, an even number of bytes."""
    _unpack_pairs_of_bytes(raw.view(np.uint16), at // 2, codes.view(np.uint16))


@compiled
def _unpack_pairs_of_bytes(raw: Any, at: Any, codes: Any) -> None:
    at = max(at, 0)
    for b in range(codes.shape[0]):
        for j in range(codes.shape[1]):
            codes[b, j] = np.uint16(raw[b, at + j] ^ _SIGNS)


@compiled
def pack_stream(codes: Any, bits: Any, out: Any) -> None:
    """Codes u8 [n, 8] as a stream of `bits` bits each, lowest first: u8 [n, bits]."""
    for b in range(codes.shape[0]):
        word = np.uint64(0)
        for j in range(8):
            word |= np.uint64(codes[b, j]) << np.uint64(bits * j)
        for k in range(bits):
            out[b, k] = np.uint8(word & np.uint64(255))
            word >>= np.uint64(8)


@compiled
def pack_pairs(pairs: Any, out: Any) -> None:
    """`pack_stream` for four bits: two codes, read as one little-endian u16, make a byte."""
    for i in range(pairs.size):
        out[i] = np.uint8((pairs[i] & np.uint16(15)) | ((pairs[i] >> np.uint16(4)) & np.uint16(240)))


@compiled
def unpack_stream(raw: Any, bits: Any, codes: Any) -> None:
    """The reverse of `pack_stream`."""
    mask = np.uint64((1 << bits) - 1)
    for b in range(raw.shape[0]):
        word = np.uint64(0)
        for k in range(bits):
            word |= np.uint64(raw[b, k]) << np.uint64(8 * k)
        for j in range(8):
            codes[b, j] = np.uint8((word >> np.uint64(bits * j)) & mask)


def unpack_nibbles(raw: U8, at: int, codes: U8) -> None:
    """The reverse of `pack_nibbles`."""
    if at % 2 or raw.shape[1] % 2:
        _unpack_nibbles(raw, at, codes)
    else:
        _unpack_pairs_of_nibbles(raw.view(np.uint16), at // 2, codes.view(np.uint16))


@compiled
def _unpack_pairs_of_nibbles(raw: Any, at: Any, codes: Any) -> None:
    half, at = codes.shape[1] // 2, max(at, 0)
    for b in range(codes.shape[0]):
        for j in range(half):
            pair = raw[b, at + j]
            codes[b, j] = np.uint16(pair & _NIBBLES)
            codes[b, j + half] = np.uint16(np.uint16(pair >> np.uint16(4)) & _NIBBLES)


@compiled
def _unpack_nibbles(raw: Any, at: Any, codes: Any) -> None:
    for b in range(raw.shape[0]):
        for j in range(16):
            codes[b, j] = raw[b, at + j] & 15
            codes[b, j + 16] = raw[b, at + j] >> 4


@compiled
def pack_fifth_bits(codes: Any, at: Any, out: Any) -> None:
    """Bit 4 of the 32 codes of a block into the four bytes at `at`, code j in bit j."""
    for b in range(codes.shape[0]):
        word = np.uint32(0)
        for j in range(codes.shape[1]):
            bit = np.uint32(np.uint32(codes[b, j] >> np.uint8(4)) & np.uint32(1))
            word = np.uint32(word | np.uint32(bit << np.uint32(j)))
        for k in range(4):
            out[b, at + k] = np.uint8(np.uint32(word >> np.uint32(8 * k)) & np.uint32(255))


@compiled
def unpack_fifth_bits(raw: Any, at: Any, codes: Any) -> None:
    """Add bit 4 to codes that hold the low four."""
    for b in range(raw.shape[0]):
        word = np.uint32(0)
        for k in range(4):
            word = np.uint32(word | np.uint32(np.uint32(raw[b, at + k]) << np.uint32(8 * k)))
        for j in range(codes.shape[1]):
            bit = np.uint32(np.uint32(word >> np.uint32(j)) & np.uint32(1))
            codes[b, j] = np.uint8(codes[b, j] | np.uint8(bit << np.uint32(4)))


@compiled
def pack_planes(codes: Any, plane: Any, out: Any) -> None:
    """Some bits of all codes of a block: u8 [blocks, n] -> u8 [blocks, at + n * bits / 8], as the K types have them.

    `plane` is a tuple: number of bits, the lowest of them, how many codes lie between two that share a byte (the first
    has the lowest bits of the byte), and the offset of the first byte.
    """
    bits, lowest, run, at = plane
    mask, low, share = np.uint16((1 << bits) - 1), np.uint16(lowest), 8 // bits
    for b in range(codes.shape[0]):
        for part in range(codes.shape[1] // (run * share)):
            source = codes[b, part * run * share : (part + 1) * run * share]
            target = out[b, at + part * run : at + (part + 1) * run]
            target[:] = 0
            for k in range(share):
                shift = np.uint16(bits * k)
                for j in range(run):
                    target[j] |= np.uint8(((np.uint16(source[k * run + j]) >> low) & mask) << shift)


@compiled
def unpack_planes(raw: Any, plane: Any, codes: Any) -> None:
    """The reverse of `pack_planes`: adds the bits to codes."""
    bits, lowest, run, at = plane
    mask, low, share = np.uint16((1 << bits) - 1), np.uint16(lowest), 8 // bits
    for b in range(codes.shape[0]):
        for part in range(codes.shape[1] // (run * share)):
            source = raw[b, at + part * run : at + (part + 1) * run]
            target = codes[b, part * run * share : (part + 1) * run * share]
            for k in range(share):
                shift = np.uint16(bits * k)
                for j in range(run):
                    target[k * run + j] |= np.uint8(((np.uint16(source[j]) >> shift) & mask) << low)
