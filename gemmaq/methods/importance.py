"""Choose scales and codes that keep the error of a layer's output on real text small, instead of that of its weights.

Errors are weighed by the mean squared input of their column, the importance matrix of llama.cpp. For ggml's types the
bytes are those of llama-quantize with the same matrix; MLX's affine types get the same search, with scales and minima
that BF16 holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gemmaq.encodings import Encoding, Kind, Quantized, codec, listed
from gemmaq.errors import InputError
from gemmaq.methods import METHODS, nearest

if TYPE_CHECKING:
    from gemmaq.encodings import F32, Values
    from gemmaq.methods import Choice

_STEPS, _FIRST, _DELTA = 36, np.float32(-0.9), np.float32(0.05)  # ggml's, for Q4_1 and Q5_1 with an imatrix


def quantize(x: F32, encoding: Encoding, choice: Choice) -> Values:
    """Codes and scales of rows; Q8_0 and floats are rounded as by method nearest, as in ggml.

    Args:
        x: f32 [rows, columns], finite; columns a multiple of the encoding's block.
        encoding: type of the result.
        choice: importance of every column, and whether scales have to be portable.

    Raises:
        InputError: the importance is missing or has another length, or the method does not write the encoding.
    """
    if choice.importance is None:
        raise InputError("method importance needs an importance matrix or calibration text", "give --imatrix or --text")
    if encoding.is_float or (encoding.kind is Kind.LINEAR and encoding.bits == 8):
        return nearest.quantize(x, encoding, choice)
    method = METHODS["importance"]
    if not method.writes(encoding):
        raise InputError(
            f"method importance cannot write {encoding.label}",
            f"it writes {', '.join(listed(method.encodings))}; --method nearest writes {encoding.name}",
        )
    columns = choice.importance.columns
    if len(columns) != x.shape[1]:
        raise InputError(f"the importance of {len(columns)} columns does not fit rows of {x.shape[1]} weights")
    columns, weighted = np.ascontiguousarray(columns, np.float32), codec(encoding).weighted
    if weighted is not None:
        values = weighted(x, columns)
        return nearest.ported(x, values, encoding) if choice.portable and encoding.holds_portable else values
    fitted = _fit(x, columns, encoding)
    if choice.portable and encoding.holds_portable:
        fitted = _ported(x.reshape(-1, encoding.block), fitted, encoding)
    minima = None if fitted.minima is None else fitted.minima.reshape(len(x), -1)
    return Quantized(fitted.codes.reshape(x.shape), fitted.scales.reshape(len(x), -1), minima)


def _fit(x: F32, columns: F32, encoding: Encoding) -> Quantized:
    """Codes u8 [groups, n], and scales and minima f32 [groups], of a LINEAR type or one with minima.

    Those of ggml have minima of at most 0.
    """
    from gemmaq.encodings.range_search import Rule, choose_codes, fit_ranges
    from gemmaq.encodings.scale_search import signed
    from gemmaq.encodings.weighing import mean_squares, weigh

    groups = x.reshape(-1, encoding.block)
    weights = weigh(groups, mean_squares(x), columns)
    if encoding.kind is Kind.LINEAR:
        assert encoding.zero is not None
        codes, fitted = signed(groups, weights, encoding.zero)
        return Quantized(codes, fitted[0])
    rule = Rule(
        (1 << encoding.bits) - 1, _FIRST, _DELTA, _STEPS, np.float32(np.inf if encoding.scales == "bf16" else 0)
    )
    fitted = np.empty((5, len(groups)), np.float32)
    fit_ranges(groups, weights, rule, fitted)
    if encoding.scales == "bf16":
        return _settled(groups, weights, fitted, encoding)
    codes = np.empty(groups.shape, np.uint8)
    choose_codes(groups, fitted, rule.top, codes)
    return Quantized(codes, fitted[0], fitted[1])


def _ported(groups: F32, fitted: Quantized, encoding: Encoding) -> Quantized:
    """Scales and minima rounded to portable numbers, and the nearest codes for these."""
    from gemmaq.encodings.kernels import round_to_ranges, round_to_scales
    from gemmaq.encodings.rounding import portable

    scales, codes = portable(fitted.scales), np.empty_like(fitted.codes)
    if fitted.minima is None:
        round_to_scales(groups, scales, np.arange(len(scales)), encoding.zero, codes)
        return Quantized(codes, scales)
    minima = portable(fitted.minima)
    round_to_ranges(groups, scales, minima, np.float32((1 << encoding.bits) - 1), codes)
    return Quantized(codes, scales, minima)


def _settled(groups: F32, weights: F32, fitted: F32, encoding: Encoding) -> Quantized:
    """Codes, scales and minima of a type of MLX: by the search or by MLX's rule, whichever errs less in BF16."""
    from gemmaq.methods.importance_kernels import settle

    nearest_affine = codec(encoding).nearest
    assert nearest_affine is not None
    usual: Quantized = nearest_affine(groups)
    assert usual.minima is not None
    best = np.stack([usual.scales.reshape(-1), usual.minima.reshape(-1)])
    settle(groups, weights, np.float32((1 << encoding.bits) - 1), fitted, best, usual.codes)
    return Quantized(usual.codes, *best)
