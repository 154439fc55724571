"""IQ2_XXS, IQ2_XS and IQ2_S: eight weights are a point of a grid and their signs.

A super-block of 256 weights has an FP16 scale, for every eight weights the index of the point in 8, 9 or 10 bits and
the signs, and a scale of four bits for every group, of 32 weights in IQ2_XXS and of 16 in the others. The first two
leave out the sign of the last of eight weights: an even number of them is negative.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from gemmaq.encodings import ENCODINGS, Codec, Quantized, grid_blocks
from gemmaq.encodings.grid_search import SUPER, Refit, Rule, quantize, weighted
from gemmaq.encodings.grids import grid
from gemmaq.encodings.legacy import half_bytes, halves
from gemmaq.encodings.weighing import mean_squares, squares

if TYPE_CHECKING:
    from gemmaq.encodings import F32, U8

_XXS, _XS, _S = (ENCODINGS[name] for name in ("iq2_xxs", "iq2_xs", "iq2_s"))
_STEP, _UNIT = np.float32(0.1), 1 / 8
_RULE_XXS = Rule(32, 6, _STEP, np.float32(1e-15), True, Refit.ALL, fitted=True, clears=True, spread=1, unit=_UNIT)
_RULE_XS = Rule(16, 9, _STEP, np.float32(1e-15), True, Refit.OFF_GRID, clears=True, spread=1, unit=_UNIT)
_RULE_S = Rule(16, 9, _STEP, np.float32(1e-8), False, Refit.OFF_GRID, stretch=np.float32(0.9875), unit=_UNIT)


def _nearest_s(x: F32) -> Quantized:
    blocks = x.reshape(-1, SUPER)
    quarter = np.float32(0.25) * mean_squares(blocks, 2)
    return quantize(_S, _RULE_S, x, quarter[:, None] + squares(blocks))


def _pack_xxs(q: Quantized) -> U8:
    assert q.supers is not None
    indices, signs = grid_blocks.split(q.codes, grid(_XXS.name))
    words = grid_blocks.words(signs, grid_blocks.numbers(q.scales.reshape(len(signs), -1), _UNIT))
    body = np.stack([indices.astype(np.uint8).view("<u4"), words.astype("<u4")], axis=2)
    return np.hstack([half_bytes(q.supers), body.reshape(len(signs), -1).view(np.uint8)]).reshape(len(q.codes), -1)


def _read_xxs(raw: U8) -> Quantized:
    supers, body = grid_blocks.pieces(raw.reshape(-1, _XXS.block_bytes), 2, 64)
    pairs = body.view("<u4").reshape(len(body), -1, 2)
    indices, words = np.ascontiguousarray(pairs[:, :, 0]).view(np.uint8), pairs[:, :, 1]
    codes = grid_blocks.join(indices.astype(np.uint32), grid_blocks.signs_in(words), grid(_XXS.name))
    return _quantized(raw, codes, grid_blocks.scales(words >> 28, _UNIT), supers)


def _pack_xs(q: Quantized) -> U8:
    assert q.supers is not None
    indices, signs = grid_blocks.split(q.codes, grid(_XS.name))
    points = (indices | (signs & 127) << 9).astype("<u2").view(np.uint8)
    nibbles = grid_blocks.nibbles(grid_blocks.numbers(q.scales.reshape(len(signs), -1), _UNIT))
    return np.hstack([half_bytes(q.supers), points, nibbles]).reshape(len(q.codes), -1)


def _read_xs(raw: U8) -> Quantized:
    supers, body, nibbles = grid_blocks.pieces(raw.reshape(-1, _XS.block_bytes), 2, 64, 8)
    points = body.view("<u2").astype(np.uint32)
    codes = grid_blocks.join(points & np.uint32(511), grid_blocks.with_eighth(points >> np.uint32(9)), grid(_XS.name))
    return _quantized(raw, codes, grid_blocks.scales(grid_blocks.from_nibbles(nibbles), _UNIT), supers)


def _pack_s(q: Quantized) -> U8:
    assert q.supers is not None
    indices, signs = grid_blocks.split(q.codes, grid(_S.name))
    high = ((indices >> 8).reshape(len(signs), -1, 4) << np.arange(0, 8, 2, dtype=np.uint32)).sum(axis=2)
    nibbles = grid_blocks.nibbles(grid_blocks.numbers(q.scales.reshape(len(signs), -1), _UNIT))
    parts = [array.astype(np.uint8) for array in (indices & 255, signs, high)]
    return np.hstack([half_bytes(q.supers), *parts, nibbles]).reshape(len(q.codes), -1)


def _read_s(raw: U8) -> Quantized:
    supers, low, signs, high, nibbles = grid_blocks.pieces(raw.reshape(-1, _S.block_bytes), 2, 32, 32, 8, 8)
    tops = (high[:, :, None] >> np.arange(0, 8, 2, dtype=np.uint8) & 3).reshape(low.shape)
    codes = grid_blocks.join(low | tops.astype(np.uint32) << np.uint32(8), signs.astype(np.uint32), grid(_S.name))
    return _quantized(raw, codes, grid_blocks.scales(grid_blocks.from_nibbles(nibbles), _UNIT), supers)


def _quantized(raw: U8, codes: U8, scales: F32, supers: U8) -> Quantized:
    shape = (len(raw), -1)
    return Quantized(codes.reshape(shape), scales.reshape(shape), supers=halves(supers).reshape(shape))


CODECS = {
    "iq2_xxs": Codec(_read_xxs, None, _pack_xxs, partial(weighted, _XXS, _RULE_XXS)),
    "iq2_xs": Codec(_read_xs, None, _pack_xs, partial(weighted, _XS, _RULE_XS)),
    "iq2_s": Codec(_read_s, _nearest_s, _pack_s, partial(weighted, _S, _RULE_S)),
}
