"""IQ4_NL and IQ4_XS: four-bit codes for sixteen levels that are closer together around 0 than towards the ends.

A block of IQ4_NL is the FP16 scale of 32 weights and 16 bytes of codes, as in Q4_0. A super-block of IQ4_XS is the FP16
scale of 256 weights, eight scales of six bits for groups of 32, and the codes of the groups.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from gemmaq.encodings import ENCODINGS, Codec, Quantized, codebook_search, packing_kernels
from gemmaq.encodings.kernels import levels_of, round_to_levels
from gemmaq.encodings.legacy import half_bytes, halves
from gemmaq.encodings.rounding import MAGIC
from gemmaq.jit import compiled

if TYPE_CHECKING:
    from gemmaq.encodings import F32, U8

_IQ4_NL = ENCODINGS["iq4_nl"]
_IQ4_XS = ENCODINGS["iq4_xs"]
GROUP = 32
GROUPS = _IQ4_XS.block // GROUP
_REACH = np.float32(32)

_ZERO = np.float32(0)
_ONE = np.float32(1)
_INF = np.float32(np.inf)


def _pack_iq4_nl(q: Quantized) -> U8:
    codes, scales = q.codes.reshape(-1, _IQ4_NL.block), half_bytes(q.scales)
    out = np.empty((len(codes), _IQ4_NL.block_bytes), np.uint8)
    packing_kernels.pack_nibbles(scales, codes, 2, out)
    return out.reshape(len(q.codes), -1)


def _read_iq4_nl(raw: U8) -> Quantized:
    blocks = raw.reshape(-1, _IQ4_NL.block_bytes)
    codes = np.empty((len(blocks), _IQ4_NL.block), np.uint8)
    packing_kernels.unpack_nibbles(blocks, 2, codes)
    return Quantized(codes.reshape(len(raw), -1), halves(blocks[:, :2]).reshape(len(raw), -1))


@compiled
def _round_scales(fitted: Any, scales: Any, supers: Any) -> None:
    """Scales as multiples, -32 to 31, of one super-scale a block, in which the largest is -32.

    Shapes: fitted and scales f32 [blocks, 8], supers f32 [blocks], infinite for weights that are too large.
    """
    for b in range(fitted.shape[0]):
        largest = _ZERO
        for g in range(GROUPS):
            if not abs(fitted[b, g]) < _INF:
                largest = _INF
            largest = fitted[b, g] if abs(fitted[b, g]) > abs(largest) else largest
        d = -largest / _REACH
        supers[b] = d
        inverse = _ONE / d if d != _ZERO else _ZERO
        for g in range(GROUPS):
            multiple = (inverse * fitted[b, g] + MAGIC) - MAGIC
            scales[b, g] = min(_REACH - _ONE, max(-_REACH, multiple))


def _quantize_iq4_xs(x: F32, columns: F32 | None = None) -> Quantized:
    """Codes are the nearest levels for the scales as they are before the super-scale is rounded to FP16, as in ggml."""
    fitted = codebook_search.fitted_scales(_IQ4_XS, x, columns, GROUP).reshape(-1, GROUPS)
    scales, supers = np.empty_like(fitted), np.empty(len(fitted), np.float32)
    _round_scales(fitted, scales, supers)
    groups, codes = x.reshape(-1, GROUP), np.empty((x.size // GROUP, GROUP), np.uint8)
    multiplied = (supers.reshape(-1, 1) * scales).reshape(-1)
    round_to_levels(groups, multiplied, levels_of(_IQ4_XS.codebook)[1], codes)
    shape = (len(x), -1)
    stored = halves(half_bytes(supers))
    return Quantized(codes.reshape(x.shape), scales.reshape(shape), supers=stored.reshape(shape))


def _pack_iq4_xs(q: Quantized) -> U8:
    assert q.supers is not None
    codes, sixths = q.codes.reshape(-1, GROUP), (q.scales.reshape(-1, GROUPS) + _REACH).astype(np.uint16)
    out = np.empty((len(sixths), _IQ4_XS.block_bytes), np.uint8)
    out[:, :2] = half_bytes(q.supers)
    high = (sixths >> 4 << np.arange(0, 16, 2, dtype=np.uint16)).sum(axis=1, dtype=np.uint16)
    out[:, 2:4] = high.astype("<u2").view(np.uint8).reshape(-1, 2)
    out[:, 4:8] = sixths[:, ::2] & 15 | (sixths[:, 1::2] & 15) << 4
    packed = np.empty((len(codes), GROUP // 2), np.uint8)
    packing_kernels.pack_nibbles(np.empty((len(codes), 0), np.uint8), codes, 0, packed)
    out[:, 8:] = packed.reshape(len(out), -1)
    return out.reshape(len(q.codes), -1)


def _read_iq4_xs(raw: U8) -> Quantized:
    blocks = raw.reshape(-1, _IQ4_XS.block_bytes)
    codes = np.empty((len(blocks) * GROUPS, GROUP), np.uint8)
    packing_kernels.unpack_nibbles(np.ascontiguousarray(blocks[:, 8:]).reshape(-1, GROUP // 2), 0, codes)
    high = np.ascontiguousarray(blocks[:, 2:4]).view("<u2") >> np.arange(0, 16, 2, dtype=np.uint16) & 3
    low = np.stack([blocks[:, 4:8] & 15, blocks[:, 4:8] >> 4], axis=2).reshape(-1, GROUPS)
    scales = (low | high << 4).astype(np.float32) - _REACH
    shape = (len(raw), -1)
    return Quantized(codes.reshape(shape), scales.reshape(shape), supers=halves(blocks[:, :2]).reshape(shape))


_quantize_iq4_nl = partial(codebook_search.quantize, _IQ4_NL)
CODECS = {
    "iq4_nl": Codec(
        _read_iq4_nl,
        _quantize_iq4_nl,
        _pack_iq4_nl,
        _quantize_iq4_nl,
        cached=partial(codebook_search.quantize_once, _IQ4_NL),
    ),
    "iq4_xs": Codec(_read_iq4_xs, _quantize_iq4_xs, _pack_iq4_xs, _quantize_iq4_xs),
}
