"""The compiled search for the scale of a block of 32 weights that lie on a grid."""

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
"""Weights that are not zero without which a block proves nothing."""


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
def _closest(row: Any) -> Any:
    """The candidate scale with the smallest squared error, for a block that lies on no grid."""
    extreme = _extreme(row)
    best, least = _ZERO, np.float32(np.inf)
    if abs(extreme) < np.float32(1e-30):
        return best
    for k in range(8, 0, -1):
        scale = -extreme / np.float32(8) if k == 8 else abs(extreme) / np.float32(k)
        error = _ZERO
        for j in range(row.size):
            code = min(np.float32(7), max(np.float32(-8), np.float32(np.rint(row[j] / scale))))
            error += (row[j] - scale * code) ** 2
        if error < least:
            best, least = scale, error
    return best


@compiled
def code_blocks(x: Any, codes: Any, scales: Any) -> None:
    """Codes u8 [blocks, 32] (8 stands for 0) and scales f32 [blocks] of f32 [blocks, 32]."""
    for b in range(x.shape[0]):
        row = x[b]
        k, scale = _find(row, 8)
        scale = _refined(row, scale) if k > 0 else _closest(row)
        scales[b] = scale
        inverse = np.float32(1) / scale if scale != _ZERO else _ZERO
        for j in range(row.size):
            code = min(np.float32(7), max(np.float32(-8), np.float32(np.rint(row[j] * inverse))))
            codes[b, j] = np.uint8(np.int32(code) + 8)
