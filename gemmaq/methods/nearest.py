"""Round every weight to the nearest value, by the rule and with the bytes of ggml or mlx.

Portable scales are rounded first, to numbers that BF16 and FP16 both hold, and codes are chosen for those.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gemmaq.encodings import Encoding, Quantized, codec
from gemmaq.errors import InputError

if TYPE_CHECKING:
    from gemmaq.encodings import F32, Values
    from gemmaq.methods import Choice


def quantize(x: F32, encoding: Encoding, choice: Choice) -> Values:
    """Codes and scales of rows.

    Args:
        x: f32 [rows, columns], finite; columns a multiple of the encoding's block.
        encoding: type of the result.
        choice: whether scales have to be portable.

    Raises:
        InputError: the encoding can only be read, or has no rule without an importance matrix.
    """
    loops = codec(encoding)
    nearest = loops.nearest if choice.portable or loops.divided is None else loops.divided
    if nearest is None:
        if encoding.weighted:
            raise InputError(f"{encoding.label} needs an importance matrix", "add --method importance")
        raise InputError(f"{encoding.label} can only be read")
    values = nearest(x)
    if choice.portable and isinstance(values, Quantized) and encoding.holds_portable:
        return ported(x, values, encoding)
    return values


def ported(x: F32, values: Quantized, encoding: Encoding) -> Quantized:
    """Rows f32 [rows, columns] on portable scales and minima; codes around zero change only where scales did."""
    from gemmaq.encodings.kernels import levels_of, round_to_levels, round_to_ranges, round_to_scales
    from gemmaq.encodings.rounding import portable

    scales = portable(values.scales)
    group = encoding.group(x.shape[1])
    blocks, codes = x.reshape(-1, group), values.codes.reshape(-1, group)
    if values.minima is not None:
        minima = portable(values.minima)
        top = np.float32((1 << encoding.bits) - 1)
        round_to_ranges(blocks, scales.reshape(-1), minima.reshape(-1), top, codes)
        return Quantized(values.codes, scales, minima)
    if encoding.codebook:
        round_to_levels(blocks, scales.reshape(-1), levels_of(encoding.codebook)[1], codes)
        return Quantized(values.codes, scales)
    changed = np.flatnonzero(scales.reshape(-1) != values.scales.reshape(-1))
    if changed.size:
        round_to_scales(blocks, scales.reshape(-1), changed, encoding.zero, codes)
    return Quantized(values.codes, scales)
