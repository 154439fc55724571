"""IQ3_XXS and IQ3_S: four weights are a point of a grid, and signs.

A super-block of 256 weights has an FP16 scale, for every four weights the index of the point in 8 or 9 bits, the signs,
and a scale of four bits for every group of 32. IQ3_XXS leaves out the sign of the last of eight weights: an even number
of them is negative.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from gemmaq.encodings import ENCODINGS, Codec, Quantized, grid_blocks
from gemmaq.encodings.grid_search import Refit, Rule, quantize, weighted
from gemmaq.encodings.grids import grid
from gemmaq.encodings.legacy import half_bytes, halves
from gemmaq.encodings.weighing import squares

if TYPE_CHECKING:
    from gemmaq.encodings import F32, U8, Encoding

_XXS, _S = ENCODINGS["iq3_xxs"], ENCODINGS["iq3_s"]
_STEP = np.float32(0.2)
_RULE_XXS = Rule(
    32, 15, _STEP, np.float32(1e-8), True, Refit.OFF_GRID, clears=True, stretch=np.float32(1.0125), unit=1 / 4
)
_RULE_S = Rule(32, 9, _STEP, np.float32(0), False, Refit.ALL_IF_ANY_IS_OFF_GRID, stretch=np.float32(1.033))


def _nearest(encoding: Encoding, rule: Rule, x: F32) -> Quantized:
    return quantize(encoding, rule, x, squares(x))


def _pack_xxs(q: Quantized) -> U8:
    assert q.supers is not None
    indices, signs = grid_blocks.split(q.codes, grid(_XXS.name))
    words = grid_blocks.words(signs, grid_blocks.numbers(q.scales.reshape(len(signs), -1), _RULE_XXS.unit))
    parts = half_bytes(q.supers), indices.astype(np.uint8), words.astype("<u4").view(np.uint8)
    return np.hstack(parts).reshape(len(q.codes), -1)


def _read_xxs(raw: U8) -> Quantized:
    supers, indices, body = grid_blocks.pieces(raw.reshape(-1, _XXS.block_bytes), 2, 64, 32)
    words = body.view("<u4")
    codes = grid_blocks.join(indices.astype(np.uint32), grid_blocks.signs_in(words), grid(_XXS.name))
    return _quantized(raw, codes, grid_blocks.scales(words >> 28, _RULE_XXS.unit), supers)


def _pack_s(q: Quantized) -> U8:
    assert q.supers is not None
    indices, signs = grid_blocks.split(q.codes, grid(_S.name))
    high = np.packbits((indices >> 8).astype(np.uint8), axis=1, bitorder="little")
    nibbles = grid_blocks.nibbles(grid_blocks.numbers(q.scales.reshape(len(signs), -1), _RULE_S.unit))
    parts = half_bytes(q.supers), (indices & 255).astype(np.uint8), high, signs.astype(np.uint8), nibbles
    return np.hstack(parts).reshape(len(q.codes), -1)


def _read_s(raw: U8) -> Quantized:
    supers, low, high, signs, nibbles = grid_blocks.pieces(raw.reshape(-1, _S.block_bytes), 2, 64, 8, 32, 4)
    tops = np.unpackbits(high, axis=1, bitorder="little").astype(np.uint32)
    codes = grid_blocks.join(low | tops << np.uint32(8), signs.astype(np.uint32), grid(_S.name))
    return _quantized(raw, codes, grid_blocks.scales(grid_blocks.from_nibbles(nibbles), _RULE_S.unit), supers)


def _quantized(raw: U8, codes: U8, scales: F32, supers: U8) -> Quantized:
    shape = (len(raw), -1)
    return Quantized(codes.reshape(shape), scales.reshape(shape), supers=halves(supers).reshape(shape))


CODECS = {
    "iq3_xxs": Codec(_read_xxs, partial(_nearest, _XXS, _RULE_XXS), _pack_xxs, partial(weighted, _XXS, _RULE_XXS)),
    "iq3_s": Codec(_read_s, partial(_nearest, _S, _RULE_S), _pack_s, partial(weighted, _S, _RULE_S)),
}
