"""The compiled search for the scale of weights that lie on a grid: a block of 32, or a whole channel."""

from __future__ import annotations

from typing import Any

import numpy as np

from gemmaq.encodings.rounding import round_bf16, round_to_11_bits
from gemmaq.jit import compiled, compiled_with

_ZERO = np.float32(0)
_MAGNITUDE, _INFINITE = np.int32(0x7FFFFFFF), np.int32(0x7F800000)
_TOLERANCE = np.float32(0.12)
"""Of the code 8, in steps of the grid: BF16 rounding of weight and extreme and half a unit of noise move it by 0.07."""
_ALWAYS = np.float32(0.01)
"""Share of the tolerance that the code 0 has too. All of these are relative errors: small codes move less."""
_ENOUGH = 8
"""Weights that are not zero without which a block or a channel proves nothing."""
_FIRST = 2
"""Weights that are looked at one by one."""
_TOP = 128
"""Largest code of a channel."""
_SLOPE, _FINE_SLOPE, _FINE = np.float32(0.012), np.float32(0.008), 16
"""What codes of a channel may be off, as a share of themselves; with finer grids, of larger codes than 16, only by what
rounding of weight and extreme to BF16 moves them, so that the grid of 127 steps is not taken for one of 126."""


@compiled
def _extreme(x: Any, b: Any) -> Any:
    """The first of the weights of largest magnitude, 0 for none; NaN counts as 0.

    Both loops are over integers and run to the end, so that they vectorise.
    """
    largest, none = np.int32(0), np.int32(x.shape[1])
    for j in range(x.shape[1]):
        size = np.int32(np.float32(x[b, j]).view(np.int32) & _MAGNITUDE)
        largest = max(largest, size if size <= _INFINITE else np.int32(0))
    first = none
    for j in range(x.shape[1]):
        size = np.int32(np.float32(x[b, j]).view(np.int32) & _MAGNITUDE)
        first = min(first, np.int32(j) if size == largest else none)
    return x[b, first] if first < none else _ZERO


@compiled
def _is_off(weight: Any, inverse: Any, low: Any, high: Any) -> Any:
    """Whether a weight is outside the tolerance of every code from low to high."""
    level = weight * inverse
    code = np.float32(np.rint(level))
    allowed = _TOLERANCE * min(np.float32(1), abs(code) / np.float32(8) + _ALWAYS)
    return (abs(level - code) > allowed) | (code < low) | (code > high)


@compiled
def _fits(x: Any, b: Any, scale: Any, low: Any, high: Any) -> Any:
    """Whether every weight is within the tolerance of a code from low to high."""
    inverse, misses = np.float32(1) / scale, np.int32(0)
    for j in range(_FIRST):  # most scales fail here
        if _is_off(x[b, j], inverse, low, high):
            return False
    for j in range(x.shape[1]):  # to the end, whatever is found: so the loop vectorises
        misses = np.int32(misses + (np.int32(1) if _is_off(x[b, j], inverse, low, high) else np.int32(0)))
    return misses == 0


@compiled
def _find(x: Any, b: Any, largest_k: int) -> tuple[Any, Any]:
    """The smallest k, and the scale extreme/k it gives, that explain a block; k 0 if none does.

    With the full negative code in use (k 8, or 16) the scale's sign makes the extreme negative; otherwise it is
    positive.
    """
    extreme = _extreme(x, b)
    if extreme == _ZERO or abs(extreme) < np.float32(1e-30):
        return 0, _ZERO
    for k in range(1, largest_k + 1):
        full = k in (8, 16)
        scale = -extreme / np.float32(k) if full else abs(extreme) / np.float32(k)
        low = np.float32(-k if full else -min(k, 15))
        high = np.float32(k - 1 if full else k)
        if _fits(x, b, scale, low, high):
            return k, scale
    return 0, _ZERO


@compiled_with(fastmath={"reassoc"})
def _regression(x: Any, b: Any, inverse: Any) -> Any:
    """Sums of weight * code and of code^2, f64; exact in any order, as codes and f32 have few enough bits."""
    above, below = 0.0, 0.0
    for j in range(x.shape[1]):
        code = np.float64(np.rint(x[b, j] * inverse))
        above += np.float64(x[b, j]) * code
        below += code * code
    return above, below


@compiled
def _reproduces(x: Any, b: Any, inverse: Any, scale: Any) -> Any:
    """Whether the codes for an inverse scale give the weights with another scale, exactly or rounded to BF16."""
    misses = np.int32(0)
    for j in range(x.shape[1]):
        product = scale * np.float32(np.rint(x[b, j] * inverse))
        is_off = (product != x[b, j]) & (round_bf16(product) != x[b, j])
        misses = np.int32(misses + (np.int32(1) if is_off else np.int32(0)))
    return misses == 0


@compiled
def _refined(x: Any, b: Any, scale: Any) -> Any:
    """The scale behind a block: the number that reproduces the weights as stored, else the least-squares one."""
    inverse = np.float32(1) / scale
    above, below = _regression(x, b, inverse)
    best = np.float32(above / below)
    for candidate in (scale, round_bf16(best), round_to_11_bits(best)):
        if _reproduces(x, b, inverse, candidate):
            return candidate
    return best


@compiled
def fit_blocks(x: Any, largest_k: int, ks: Any, scales: Any, errors: Any) -> None:
    """For every block, f32 [blocks, 32]: the k that explains it (0 none, -1 too few weights), scale, squared error."""
    for b in range(x.shape[0]):
        present = 0
        for j in range(x.shape[1]):
            present += x[b, j] != _ZERO
        ks[b], scales[b], errors[b] = -1, _ZERO, _ZERO
        if present < _ENOUGH:
            continue
        k, scale = _find(x, b, largest_k)
        ks[b] = k
        if k > 0:
            scale = _refined(x, b, scale)
            scales[b] = scale
            for j in range(x.shape[1]):
                rest = x[b, j] - scale * np.float32(np.rint(x[b, j] / scale))
                errors[b] += rest * rest


@compiled
def _code(weight: Any, scale: Any) -> Any:
    """The code from -8 to 7 of a weight, f32."""
    return min(np.float32(7), max(np.float32(-8), np.float32(np.rint(weight / scale))))


@compiled
def _square(weight: Any, scale: Any) -> Any:
    rest = np.float64(weight - scale * _code(weight, scale))
    return rest * rest


@compiled_with(fastmath={"reassoc"})  # only sums may change their order: the numbers come from functions without
def _rounded(x: Any, b: Any, scale: Any) -> tuple[Any, Any]:
    """Squared error of a block in codes -8..7 of a scale, and the least-squares scale for these codes."""
    error, above, below = 0.0, 0.0, 0.0
    for j in range(x.shape[1]):
        code = np.float64(_code(x[b, j], scale))
        error += _square(x[b, j], scale)
        above += np.float64(x[b, j]) * code
        below += code * code
    return error, np.float32(above / below) if above != 0.0 else scale


@compiled
def stray(x: Any, errors: Any) -> None:
    """Squared distance of blocks, f32 [blocks, 32], from the closest codes of four bits: of the best extreme/k."""
    for b in range(x.shape[0]):
        extreme = _extreme(x, b)
        errors[b] = _ZERO
        if abs(extreme) < np.float32(1e-30):
            continue
        best, least = _ZERO, np.inf
        for k in range(8, 0, -1):
            scale = -extreme / np.float32(8) if k == 8 else abs(extreme) / np.float32(k)
            error, refined = _rounded(x, b, scale)
            if error < least:
                best, least = refined, error
        errors[b] = min(least, _rounded(x, b, best)[0])


@compiled
def _channel_fits(x: Any, b: Any, scale: Any, slope: Any) -> bool:
    inverse = np.float32(1) / scale
    for j in range(x.shape[1]):
        level = x[b, j] * inverse
        code = np.float32(np.rint(level))
        if abs(level - code) > slope * abs(code) + _TOLERANCE * _ALWAYS:
            return False
    return True


@compiled
def _describe(x: Any, b: Any, scale: Any) -> tuple[Any, Any, Any, Any]:
    """Codes of a row on a grid: largest and smallest one, whether all are odd, squared error with the best scale."""
    low, high, odd = 0, 0, True
    above, below, square = 0.0, 0.0, 0.0
    for j in range(x.shape[1]):
        code = int(np.rint(x[b, j] / scale))
        low, high, odd = min(low, code), max(high, code), odd and code % 2 != 0
        above += np.float64(x[b, j]) * code
        below += np.float64(code) * code
        square += np.float64(x[b, j]) ** 2
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
        present = 0
        for j in range(x.shape[1]):
            present += x[c, j] != _ZERO
        highs[c], lows[c], odd[c], errors[c] = 0, 0, False, _ZERO
        extreme = abs(_extreme(x, c))
        if present < _ENOUGH or extreme < np.float32(1e-30):
            continue
        for k in range(1, _TOP + 1):
            if _channel_fits(x, c, extreme / np.float32(k), _SLOPE if k <= _FINE else _FINE_SLOPE):
                highs[c], lows[c], odd[c], errors[c] = _describe(x, c, extreme / np.float32(k))
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
        k, scale = _find(x, b, 8)
        fits[b] = k > 0
        if k == 0:
            continue
        scale = _refined(x, b, scale)
        scales[b] = scale
        inverse = np.float32(1) / scale
        for j in range(x.shape[1]):
            code = min(np.float32(7), max(np.float32(-8), np.float32(np.rint(x[b, j] * inverse))))
            codes[b, j] = np.uint8(np.int32(code) + 8)
