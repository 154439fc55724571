"""Matrices of bitsandbytes: NF4 and FP4 in blocks of the flat weights, and int8 with a scale a row.

The largest magnitudes of blocks may be quantized themselves, in blocks with a codebook of 256 numbers and an offset.
Source: bitsandbytes/functional.py (QuantState, dequantize_4bit) and the kernels of its CPU backend.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gemmaq.checkpoint import Tensor
from gemmaq.checkpoint.schemes.arrays import Array, Arrays, matrix, need, rows_of
from gemmaq.checkpoint.schemes.grouped import opaque
from gemmaq.errors import InputError
from gemmaq.files.malformed import parse_json
from gemmaq.files.safetensors_header import ITEM_BYTES
from gemmaq.files.span import Reader

if TYPE_CHECKING:
    from gemmaq.encodings import F32

STATE = "quant_state.bitsandbytes__"
"""How the name of the array with the state begins, behind `weight.`; the type follows."""
SMALL = ("absmax", "quant_map", "nested_absmax", "nested_quant_map")
"""Other arrays behind `weight.`."""
_PER_CODE = np.float32(7.874015718698502e-3)
"""1/127, as int8_vectorwise_dequant has it."""
_MAX_STATE = 1 << 16


@dataclass(frozen=True, slots=True)
class Nested:
    """Magnitudes that are codes of a byte: `codebook[code] * magnitude of the block + offset`."""

    magnitudes: Array
    codebook: Array
    block: int
    offset: float


@dataclass(frozen=True, slots=True)
class Blocks:
    """Decoder of a matrix with two codes in a byte, the first in the upper half.

    Attributes:
        codes: The bytes, one in a row.
        magnitudes: Largest magnitude of every block, or its code.
        codebook: The number of every code.
        block: Weights of a block, counted through the whole matrix.
        columns: Columns of the matrix.
        nested: How magnitudes are coded, None if they are not.
    """

    codes: Array
    magnitudes: Array
    codebook: Array
    block: int
    columns: int
    nested: Nested | None

    @property
    def arrays(self) -> tuple[Array, ...]:
        """All arrays that it reads."""
        own = (self.codes, self.magnitudes, self.codebook)
        return own if self.nested is None else (*own, self.nested.magnitudes, self.nested.codebook)

    def values(self, reader: Reader, first: int, count: int) -> F32:
        """Weights of rows, f32 [count, columns].

        Raises:
            InputError: The file ends early or cannot be read.
        """
        start, stop = first * self.columns, (first + count) * self.columns
        pairs = self.codes.read(reader, start // 2, -(-stop // 2) - start // 2).reshape(-1).view(np.uint8)
        codes = np.stack([pairs >> 4, pairs & 15], axis=1).reshape(-1)[start % 2 :][: stop - start]
        block = start // self.block
        magnitudes = self._magnitudes(reader, block, -(-stop // self.block) - block)
        spread = np.repeat(magnitudes, self.block)[start - block * self.block :][: stop - start]
        weights: F32 = self.codebook.read(reader).reshape(-1)[codes] * spread
        return weights.reshape(count, self.columns)

    def _magnitudes(self, reader: Reader, first: int, count: int) -> F32:
        """Largest magnitudes of blocks, f32 [count]."""
        stored = self.magnitudes.read(reader, first, count).reshape(-1)
        if self.nested is None:
            return stored
        nested = self.nested
        blocks = np.arange(first, first + count) // nested.block
        start = int(blocks[0])
        outer = nested.magnitudes.read(reader, start, int(blocks[-1]) - start + 1).reshape(-1)
        inner: F32 = nested.codebook.read(reader).reshape(-1)[stored.view(np.uint8)]
        magnitudes: F32 = inner * outer[blocks - start] + np.float32(nested.offset)
        return magnitudes


@dataclass(frozen=True, slots=True)
class Bytes:
    """Decoder of a matrix of signed bytes, in units of 1/127 of the largest magnitude of its row."""

    codes: Array
    magnitudes: Array

    @property
    def arrays(self) -> tuple[Array, ...]:
        """All arrays that it reads."""
        return self.codes, self.magnitudes

    def values(self, reader: Reader, first: int, count: int) -> F32:
        """Weights of rows, f32 [count, columns]; raises as `Blocks.values`."""
        codes = self.codes.read(reader, first, count).astype(np.float32)
        weights: F32 = codes * self.magnitudes.read(reader, first, count) * _PER_CODE
        return weights


def is_four_bits(arrays: Arrays) -> bool:
    """Whether arrays are those of an NF4 or FP4 matrix."""
    return any(suffix.startswith(STATE) for suffix in arrays)


def four_bit_tensor(name: str, arrays: Arrays, expected: tuple[int, ...] | None) -> Tensor:
    """A matrix in NF4 or FP4.

    Args:
        name: Canonical name.
        arrays: Suffix of an array -> file and header entry.
        expected: Shape by the config, for files of which only the header is here.

    Raises:
        InputError: Arrays are missing or do not fit, or the state cannot be read.
    """
    key = next(suffix for suffix in arrays if suffix.startswith(STATE))
    kind = key.removeprefix(STATE)
    state = _state(name, arrays, key) or _usual(arrays, expected)
    nested = "nested_blocksize" in state
    suffixes = ("weight", *SMALL[: 4 if "nested_absmax" in arrays or nested else 2])
    need(arrays, suffixes, name=name, scheme="bitsandbytes")
    span = arrays["weight"][0]
    shape, block = state.get("shape"), state.get("blocksize")
    if kind not in ("nf4", "fp4") or not _are_counts(shape, 2) or not _are_counts([block], 1):
        raise InputError(f"has the state {json.dumps(state):.200}, which cannot be read", path=span, tensor=name)
    assert isinstance(shape, list) and isinstance(block, int)
    codes = rows_of(arrays, "weight")
    codes = Array(codes.span, codes.offset, "U8", codes.nbytes, 1)
    magnitudes, codebook = rows_of(arrays, "absmax", 1), rows_of(arrays, "quant_map", 1)
    count, inner = math.prod(shape), None
    blocks = -(-count // block)
    fits = codes.rows == -(-count // 2) and magnitudes.rows == blocks and codebook.rows >= 16
    if nested:
        size, offset = state["nested_blocksize"], state.get("nested_offset")
        if not _are_counts([size], 1) or not isinstance(offset, (int, float)):
            raise InputError(f"has the state {json.dumps(state):.200}, which cannot be read", path=span, tensor=name)
        inner = Nested(rows_of(arrays, "nested_absmax", 1), rows_of(arrays, "nested_quant_map", 1), size, float(offset))
        fits = fits and inner.magnitudes.rows == -(-blocks // size) and inner.codebook.rows >= 256
        fits = fits and magnitudes.dtype == "U8" and inner.magnitudes.dtype == inner.codebook.dtype == "F32"
    elif magnitudes.dtype not in ("F32", "BF16", "F16"):
        fits = False
    if not fits or codebook.dtype != "F32":
        raise InputError(f"has arrays that do not fit the shape {shape}", path=span, tensor=name)
    decoder = Blocks(codes, magnitudes, codebook, block, shape[-1], inner)
    return _tensor(name, tuple(shape), decoder, kind)


def int8_tensor(name: str, arrays: Arrays) -> Tensor:
    """A matrix of signed bytes, and the largest magnitude of every row; arguments and errors as `four_bit_tensor`."""
    need(arrays, ("weight", "SCB"), name=name, scheme="bitsandbytes")
    codes = matrix(arrays, "weight", ("I8",), name=name)
    magnitudes = rows_of(arrays, "SCB", 1)
    span, form = arrays["weight"][0], 0
    if "weight_format" in arrays:
        with Reader() as reader:
            form = int(rows_of(arrays, "weight_format", 1).read(reader).reshape(-1)[0])
    if magnitudes.rows != codes.rows or magnitudes.dtype != "F32" or form != 0:
        raise InputError(
            f"has SCB {list(arrays['SCB'][1].shape)} and weight_format {form}, which cannot be read",
            "only rows in their own order are read (weight_format 0)",
            path=span,
            tensor=name,
        )
    return _tensor(name, (codes.rows, codes.columns), Bytes(codes, magnitudes), "llm.int8")


def _tensor(name: str, shape: tuple[int, ...], decoder: Blocks | Bytes, label: str) -> Tensor:
    rows = math.prod(shape[:-1])
    nbytes = sum(array.nbytes for array in decoder.arrays)
    parts = tuple(array.part(rows) for array in decoder.arrays)
    bits = 4 if isinstance(decoder, Blocks) else 8
    return Tensor(name, shape, opaque(label, bits), parts, "decoded", decoder=decoder, stored_bytes=nbytes)


def _are_counts(values: Any, least: int) -> bool:
    """Whether these are at least so many whole numbers from 1 on."""
    return isinstance(values, list) and len(values) >= least and all(type(n) is int and 0 < n < 1 << 31 for n in values)


def _usual(arrays: Arrays, shape: tuple[int, ...] | None) -> dict[str, Any]:
    """The state that matrices have by default."""
    state: dict[str, Any] = {"shape": None if shape is None else list(shape), "blocksize": 64}
    return {**state, "nested_blocksize": 256, "nested_offset": 0.0} if "nested_absmax" in arrays else state


def _state(name: str, arrays: Arrays, key: str) -> dict[str, Any] | None:
    """The state of a matrix, JSON in bytes; None if there are only zeros in its place.

    Raises:
        InputError: It is no JSON object.
    """
    span, entry = arrays[key]
    if entry.nbytes > _MAX_STATE or ITEM_BYTES[entry.dtype] != 1:
        raise InputError(f"has {key} {entry.dtype} {list(entry.shape)}, which cannot be read", path=span, tensor=name)
    with Reader() as reader:
        raw = bytes(reader.bytes(span, entry.offset, entry.nbytes))
    if raw.count(0) == len(raw):
        return None
    try:
        state = parse_json(raw)
    except ValueError as error:
        raise InputError(f"has {key} that is no JSON: {error}", path=span, tensor=name) from error
    if not isinstance(state, dict):
        raise InputError(f"has {key} that is no JSON object", path=span, tensor=name)
    return state
