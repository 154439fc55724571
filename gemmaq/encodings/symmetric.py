"""compressed-tensors' symmetric integers in groups of 64 and 128, or with one scale a row.

Scales are BF16. `nearest` is the rule of llm-compressor's min-max observer: the scale is the largest magnitude divided
by half the number of steps, 7.5 for int4. Q4_0 is the same in groups of 32, by ggml's rule.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from gemmaq.encodings import ENCODINGS, Codec, Encoding, Quantized
from gemmaq.encodings.symmetric_kernels import LANES, round_to_extremes, search

if TYPE_CHECKING:
    from gemmaq.encodings import F32

_GROWTH = np.float32(1.06)
_CANDIDATES = 8
_ROW_CANDIDATES = 22
"""Candidates for the scale of a row: among so many weights some are far out, and clipping these pays."""


def _nearest(encoding: Encoding, x: F32) -> Quantized:
    groups = x.reshape(-1, encoding.group(x.shape[1]))
    codes, scales = np.empty(groups.shape, np.uint8), np.empty(len(groups), np.float32)
    round_to_extremes(groups, np.float32(encoding.zero), codes, scales)
    return Quantized(codes.reshape(x.shape), scales.reshape(len(x), -1))


def _weighted(encoding: Encoding, x: F32, importance: F32) -> Quantized:
    """Errors are weighed as ggml does: importance times sqrt(mean square of the row + square of the weight)."""
    group = encoding.group(x.shape[1])
    values = _nearest(encoding, x)
    squares = np.square(x, dtype=np.float64).mean(axis=1).astype(np.float32)
    search(
        x.reshape(-1, group // LANES, LANES),
        importance.reshape(-1, group // LANES, LANES),
        squares,
        (np.float32(encoding.zero), _GROWTH, _CANDIDATES if encoding.block else _ROW_CANDIDATES),
        values.codes.reshape(-1, group // LANES, LANES),
        values.scales.reshape(-1),
    )
    return values


CODECS = {
    name: Codec(
        nearest=partial(_nearest, encoding), weighted=partial(_weighted, encoding) if encoding.weighted else None
    )
    for name, encoding in ENCODINGS.items()
    if encoding.module == "symmetric"
}
