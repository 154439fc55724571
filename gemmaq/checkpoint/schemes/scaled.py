"""Matrices of FP8 numbers with a scale for the whole, for each row, or for each block of rows and columns.

Source: FP8 in transformers (integrations/finegrained_fp8.py), float-quantized of compressed-tensors, ModelOpt.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gemmaq.checkpoint import Tensor
from gemmaq.checkpoint.schemes.arrays import FLOATS, Array, Arrays, rows_of, weight_settings
from gemmaq.checkpoint.schemes.grouped import opaque
from gemmaq.errors import InputError
from gemmaq.files.span import Reader

if TYPE_CHECKING:
    from gemmaq.encodings import F32

CODES = ("F8_E4M3", "F8_E5M2")
_SCALES = ("weight_scale_inv", "weight_scale")


@dataclass(frozen=True, slots=True)
class Scaled:
    """Decoder of a matrix of FP8 numbers.

    Attributes:
        codes: The numbers.
        scales: Scales of blocks, [rows of blocks, blocks in a row]; None for none.
        rows: Rows of one matrix of a stack, or of the only one.
        block: Rows and columns of a block.
    """

    codes: Array
    scales: Array | None
    rows: int
    block: tuple[int, int]

    @property
    def arrays(self) -> tuple[Array, ...]:
        """All arrays that it reads."""
        return (self.codes,) if self.scales is None else (self.codes, self.scales)

    def values(self, reader: Reader, first: int, count: int) -> F32:
        """Weights of rows, f32 [count, columns].

        Raises:
            InputError: The file ends early or cannot be read.
        """
        numbers: F32 = self.codes.read(reader, first, count)
        if self.scales is None:
            return numbers
        height, width = self.block
        row = np.arange(first, first + count)
        blocks = row // self.rows * -(-self.rows // height) + row % self.rows // height
        start = int(blocks[0])
        scales = self.scales.read(reader, start, int(blocks[-1]) - start + 1)[blocks - start]
        weights: F32 = numbers * np.repeat(scales, width, axis=1)[:, : self.codes.columns]
        return weights


def scaled_tensor(name: str, arrays: Arrays, settings: Mapping[str, Any]) -> Tensor:
    """A matrix of FP8 numbers, or of several in a stack.

    Args:
        name: Canonical name.
        arrays: Suffix of an array -> file and header entry.
        settings: The quantization settings of the folder, which may name the size of blocks.

    Raises:
        InputError: The scales do not fit the matrix.
    """
    suffix = next((key for key in arrays if key not in _SCALES and arrays[key][1].dtype in CODES), "weight")
    shape = arrays[suffix][1].shape
    codes, rows = rows_of(arrays, suffix), shape[-2] if len(shape) > 1 else 1
    key = next((key for key in _SCALES if key in arrays), None)
    scales, block, what = None, (rows, codes.columns), "numbers"
    if key is not None:
        scales, block, what = _blocks(name, arrays, key, rows=rows, codes=codes, settings=settings)
    decoder = Scaled(codes, scales, rows, block)
    kind = "" if arrays[suffix][1].dtype == "F8_E4M3" else "e5m2-"
    nbytes = sum(array.nbytes for array in decoder.arrays)
    parts = tuple(array.part(codes.rows) for array in decoder.arrays)
    encoding = opaque(f"fp8-{kind}{what}", 8)
    return Tensor(name, shape, encoding, parts, "decoded", decoder=decoder, stored_bytes=nbytes)


def _blocks(
    name: str, arrays: Arrays, key: str, *, rows: int, codes: Array, settings: Mapping[str, Any]
) -> tuple[Array, tuple[int, int], str]:
    """The scales as rows of blocks, rows and columns of a block, and what has a scale in the name of the type."""
    span, entry = arrays[key]
    shape, stack = arrays[key][1].shape, codes.rows // rows
    count = math.prod(shape)
    if entry.dtype in FLOATS and count == 1:
        return rows_of(arrays, key, 1), (codes.rows, codes.columns), "tensor"
    if entry.dtype in FLOATS and count == codes.rows:
        return rows_of(arrays, key, 1), (1, codes.columns), "row"
    if entry.dtype in FLOATS and count == stack and stack > 1:
        return rows_of(arrays, key, 1), (rows, codes.columns), "tensor"
    if entry.dtype in FLOATS and len(shape) > 1 and math.prod(shape[:-2]) == stack:
        down, across = shape[-2:]
        for height, width in (_asked(settings), (rows // down or 1, codes.columns // across or 1)):
            if height and (-(-rows // height), -(-codes.columns // width)) == (down, across):
                return rows_of(arrays, key), (height, width), f"block{width}" if height > 1 else f"g{width}"
    raise InputError(
        f"has scales {entry.dtype} {list(shape)}, which do not fit {rows} rows of {codes.columns}",
        path=span,
        tensor=name,
    )


def _asked(settings: Mapping[str, Any]) -> tuple[int, int]:
    """Rows and columns of a block by the settings, zeros if they do not say."""
    blocks = [weights.get("block_structure") for weights in weight_settings(settings)]
    for value in (settings.get("weight_block_size"), *blocks):
        if isinstance(value, list) and len(value) == 2 and all(isinstance(n, int) and n > 0 for n in value):
            return value[0], value[1]
    return 0, 0
