"""Choose scales and codes so that the error of a layer's output is small on real text, not that of its weights.

A weight's error counts as much as the squared input of its column is large on average: an importance matrix, as
llama.cpp's imatrix has it. For ggml's types the bytes are those of llama-quantize with the same matrix; MLX's affine
types, for which there is no such tool, get the same search with scales and minima that BF16 holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gemmaq.encodings import Encoding, Kind, Quantized, codec
from gemmaq.errors import InputError
from gemmaq.methods import METHODS, nearest

if TYPE_CHECKING:
    from gemmaq.encodings import F32, Values
    from gemmaq.methods import Choice

_STEPS, _FIRST, _DELTA = 36, np.float32(-0.9), np.float32(0.05)  # ggml's, for Q4_1 and Q5_1 with an imatrix


def quantize(x: F32, encoding: Encoding, choice: Choice) -> Values:
    """Codes and scales of rows; Q8_0 and floats as method nearest has them, which ggml does too.

    Args:
        x: f32 [rows, columns], finite; columns a multiple of the encoding's block.
        encoding: to be written in.
        choice: the importance of every column, and whether scales are to be portable.

    Raises:
        InputError: the importance is missing or of another length, or the encoding has no such search.
    """
    if choice.importance is None:
        raise InputError("method importance needs an importance matrix or calibration text", "give --imatrix or --text")
    if encoding.is_float or (encoding.kind is Kind.LINEAR and encoding.bits == 8):
        return nearest.quantize(x, encoding, choice)
    method = METHODS["importance"]
    if not method.writes(encoding):
        raise InputError(
            f"method importance cannot write {encoding.label}",
            f"it writes {', '.join(method.encodings)}; --method nearest writes {encoding.name}",
        )
    columns = choice.importance.columns
    if len(columns) != x.shape[1]:
        raise InputError(f"the importance of {len(columns)} columns does not fit rows of {x.shape[1]} weights")
    groups = x.reshape(-1, encoding.block)
    if encoding.kind is Kind.CODEBOOK:
        from gemmaq.encodings import codebook_search

        values = codebook_search.quantize(encoding, x, columns)
        return nearest.ported(x, values, encoding) if choice.portable else values
    weights = np.ascontiguousarray(columns, np.float32).reshape(-1, encoding.block)
    if encoding.scales == "bf16":
        found = _fit_mlx(groups, weights, _mean_squares(x), encoding)
    elif encoding.kind is Kind.MINIMA:
        found = _fit_affine(groups, weights, _mean_squares(x), encoding)
    else:
        found = _fit_signed(groups, weights, _mean_squares(x), encoding)
    if choice.portable and encoding.holds_portable:
        found = _ported(groups, found, encoding)
    minima = None if found.minima is None else found.minima.reshape(len(x), -1)
    return Quantized(found.codes.reshape(x.shape), found.scales.reshape(len(x), -1), minima)


def _mean_squares(x: F32) -> F32:
    from gemmaq.methods.importance_kernels import mean_squares

    out = np.empty(len(x), np.float32)
    mean_squares(x, out)
    return out


def _fit_signed(groups: F32, weights: F32, squares: F32, encoding: Encoding) -> Quantized:
    """Groups of a type around zero: codes like `groups`, scales f32 [groups]."""
    from gemmaq.methods.importance_kernels import fit_signed

    codes, scales = np.empty(groups.shape, np.uint8), np.empty(len(groups), np.float32)
    fit_signed(groups, weights, squares, np.float32(encoding.zero), codes, scales)
    return Quantized(codes, scales)


def _fit_affine(groups: F32, weights: F32, squares: F32, encoding: Encoding) -> Quantized:
    """Groups of a type with minima, which ggml has at most 0."""
    from gemmaq.methods.importance_kernels import fit_affine

    codes, scales = np.empty(groups.shape, np.uint8), np.empty(len(groups), np.float32)
    minima = np.empty_like(scales)
    fit_affine(groups, weights, squares, _rule(encoding, 0), codes, scales, minima)
    return Quantized(codes, scales, minima)


def _rule(encoding: Encoding, ceiling: float) -> tuple[np.int32, np.float32, np.float32, int, np.float32]:
    """What `search_ranges` is to try; the minimum may be as much as `ceiling`."""
    return np.int32((1 << encoding.bits) - 1), _FIRST, _DELTA, _STEPS, np.float32(ceiling)


def _ported(groups: F32, found: Quantized, encoding: Encoding) -> Quantized:
    """The scales and minima found, made portable, with the nearest codes for what they have become."""
    from gemmaq.encodings.kernels import round_to_ranges, round_to_scales
    from gemmaq.encodings.rounding import portable

    scales, codes = portable(found.scales), np.empty_like(found.codes)
    if found.minima is None:
        round_to_scales(groups, scales, np.arange(len(scales)), encoding.zero, codes)
        return Quantized(codes, scales)
    minima = portable(found.minima)
    round_to_ranges(groups, scales, minima, np.float32((1 << encoding.bits) - 1), codes)
    return Quantized(codes, scales, minima)


def _fit_mlx(groups: F32, weights: F32, squares: F32, encoding: Encoding) -> Quantized:
    """Groups of an affine type of MLX: whichever errs less as BF16 holds it, what is found or MLX's own rule."""
    from gemmaq.methods.importance_kernels import fit_affine, settle

    usual = codec(encoding).nearest
    assert usual is not None
    known: Quantized = usual(groups)
    assert known.minima is not None
    codes, found = known.codes, np.empty((2, len(groups)), np.float32)
    fit_affine(groups, weights, squares, _rule(encoding, np.inf), codes, *found)
    best = np.stack([known.scales.reshape(-1), known.minima.reshape(-1)])
    settle(groups, weights, squares, np.float32((1 << encoding.bits) - 1), found, best, codes)
    return Quantized(codes, *best)
