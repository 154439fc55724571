"""The compiled search for the scale of weights that lie on a grid: a block of 32, or a whole channel."""

from __future__ import annotations

from typing import Any

import numpy as np

from gemmaq.encodings.rounding import round_bf16, round_to_11_bits
from gemmaq.jit import compiled

_ZERO = np.float32(0)
_TOLERANCE = np.float32(0.12)
"""Of the code 8, in steps of the grid: BF16 rounding of weight and extreme and half a unit of noise move it by 0.07."""
_ALWAYS = np.float32(0.01)
"""Share of the tolerance that the code 0 has too. All of these are relative errors: small codes move less."""
_ENOUGH = 8
"""Weights that are not zero without which a block or a channel proves nothing."""
_TOP = 128
"""Largest code of a channel."""
_SLOPE, _FINE_SLOPE, _FINE = np.float32(0.012), np.float32(0.008), 16
"""What codes of a channel may be off, as a share of themselves; with finer grids, of larger codes than 16, only by what
rounding of weight and extreme to BF16 moves them, so that the grid of 127 steps is not taken for one of 126."""


@compiled
def _extreme(row: Any) -> Any:
    extreme = _ZERO
    for j in range(row.size):
        if abs(row[j]) > abs(extreme):
            extreme = row[j]
    return extreme


@compiled
def _fits(row: Any, scale: Any, low: Any, high: Any) -> bool:
    """Whether every weight is within the tolerance of a code from low to high."""
    inverse = np.float32(1) / scale
    for j in range(row.size):
        level = row[j] * inverse
        code = np.float32(np.rint(level))
        allowed = _TOLERANCE * min(np.float32(1), abs(code) / np.float32(8) + _ALWAYS)
        if abs(level - code) > allowed or code < low or code > high:
            return False
    return True


@compiled
def _find(row: Any, largest_k: int) -> tuple[Any, Any]:
    """The smallest k, and the scale extreme/k it gives, that explain a block; k 0 if none does.

    With the full negative code in use (k 8, or 16) the scale's sign makes the extreme negative; otherwise it is
    positive.
    """
    extreme = _extreme(row)
    if extreme == _ZERO or abs(extreme) < np.float32(1e-30):
        return 0, _ZERO
    for k in range(1, largest_k + 1):
        full = k in (8, 16)
        scale = -extreme / np.float32(k) if full else abs(extreme) / np.float32(k)
        low = np.float32(-k if full else -min(k, 15))
        high = np.float32(k - 1 if full else k)
        if _fits(row, scale, low, high):
            return k, scale
    return 0, _ZERO


@compiled
def _refined(row: Any, scale: Any) -> Any:
    """The scale behind a block: the number that reproduces the weights as stored, else the least-squares one."""
    inverse = np.float32(1) / scale
    above, below = 0.0, 0.0
    for j in range(row.size):
        code = np.rint(row[j] * inverse)
        above += np.float64(row[j]) * code
        below += code * code
    best = np.float32(above / below)
    for candidate in (scale, round_bf16(best), round_to_11_bits(best)):
        exact = True
        for j in range(row.size):
            code = np.float32(np.rint(row[j] * inverse))
            product = candidate * code
            if product != row[j] and round_bf16(product) != row[j]:
                exact = False
                break
        if exact:
            return candidate
    return best


@compiled
def fit_blocks(x: Any, largest_k: int, ks: Any, scales: Any, errors: Any) -> None:
    """For every block, f32 [blocks, 32]: the k that explains it (0 none, -1 too few weights), scale, squared error."""
    for b in range(x.shape[0]):
        row = x[b]
        present = 0
        for j in range(row.size):
            present += row[j] != _ZERO
        ks[b], scales[b], errors[b] = -1, _ZERO, _ZERO
        if present < _ENOUGH:
            continue
        k, scale = _find(row, largest_k)
        ks[b] = k
        if k > 0:
            scale = _refined(row, scale)
            scales[b] = scale
            for j in range(row.size):
                rest = row[j] - scale * np.float32(np.rint(row[j] / scale))
                errors[b] += rest * rest


@compiled
def _rounded(row: Any, scale: Any) -> tuple[Any, Any]:
    """Squared error of a block in codes -8..7 of a scale, and the least-squares scale for these codes."""
    error, above, below = 0.0, 0.0, 0.0
    for j in range(row.size):
        code = min(np.float32(7), max(np.float32(-8), np.float32(np.rint(row[j] / scale))))
        error += np.float64(row[j] - scale * code) ** 2
        above += np.float64(row[j]) * code
        below += np.float64(code) * code
    return error, np.float32(above / below) if above != 0.0 else scale


@compiled
def stray(x: Any, errors: Any) -> None:
    """Squared distance of blocks, f32 [blocks, 32], from the closest codes of four bits: of the best extreme/k."""
    for b in range(x.shape[0]):
        row = x[b]
        extreme = _extreme(row)
        errors[b] = _ZERO
        if abs(extreme) < np.float32(1e-30):
            continue
        best, least = _ZERO, np.inf
        for k in range(8, 0, -1):
            scale = -extreme / np.float32(8) if k == 8 else abs(extreme) / np.float32(k)
            error, refined = _rounded(row, scale)
            if error < least:
                best, least = refined, error
        errors[b] = min(least, _rounded(row, best)[0])


@compiled
def _channel_fits(row: Any, scale: Any, slope: Any) -> bool:
    inverse = np.float32(1) / scale
    for j in range(row.size):
        level = row[j] * inverse
        code = np.float32(np.rint(level))
        if abs(level - code) > slope * abs(code) + _TOLERANCE * _ALWAYS:
            return False
    return True


@compiled
def _describe(row: Any, scale: Any) -> tuple[Any, Any, Any, Any]:
    """Codes of a row on a grid: largest and smallest one, whether all are odd, squared error with the best scale."""
    low, high, odd = 0, 0, True
    above, below, square = 0.0, 0.0, 0.0
    for j in range(row.size):
        code = int(np.rint(row[j] / scale))
        low, high, odd = min(low, code), max(high, code), odd and code % 2 != 0
        above += np.float64(row[j]) * code
        below += np.float64(code) * code
        square += np.float64(row[j]) ** 2
    return high, low, odd, max(0.0, square - above * above / below)


@compiled
def fit_channels(x: Any, highs: Any, lows: Any, odd: Any, errors: Any) -> None:
    """For every channel, f32 [channels, n], the coarsest grid of one scale that explains all of its weights.

    Args:
        x: weights.
        highs: largest code, i32 [channels]; 0 if there is no such grid, or too few weights to tell.
        lows: smallest code, i32 [channels].
        odd: whether all codes are odd, bool [channels]: levels of half a step then, without zero.
        errors: squared distance of the weights from the grid, f32 [channels].
    """
    for c in range(x.shape[0]):
        row = x[c]
        present = 0
        for j in range(row.size):
            present += row[j] != _ZERO
        highs[c], lows[c], odd[c], errors[c] = 0, 0, False, _ZERO
        extreme = abs(_extreme(row))
        if present < _ENOUGH or extreme < np.float32(1e-30):
            continue
        for k in range(1, _TOP + 1):
            if _channel_fits(row, extreme / np.float32(k), _SLOPE if k <= _FINE else _FINE_SLOPE):
                highs[c], lows[c], odd[c], errors[c] = _describe(row, extreme / np.float32(k))
                break


@compiled
def code_blocks(x: Any, codes: Any, scales: Any, fits: Any) -> None:
    """Codes of blocks that lie on a grid of four bits.

    Args:
        x: weights, f32 [blocks, 32].
        codes: u8 [blocks, 32], 8 stands for 0.
        scales: f32 [blocks].
        fits: whether a block lies on a grid, bool [blocks]; others keep what is in codes and scales.
    """
    for b in range(x.shape[0]):
        row = x[b]
        k, scale = _find(row, 8)
        fits[b] = k > 0
        if k == 0:
            continue
        scale = _refined(row, scale)
        scales[b] = scale
        inverse = np.float32(1) / scale
        for j in range(row.size):
            code = min(np.float32(7), max(np.float32(-8), np.float32(np.rint(row[j] * inverse))))
            codes[b, j] = np.uint8(np.int32(code) + 8)
