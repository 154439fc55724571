"""Matrices of compressed-tensors that have no type of gemmaq's own: groups of any size, zero points, columns reordered.

Source: compressors/pack_quantized, compressors/naive_quantized and quantization/lifecycle of compressed-tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gemmaq.checkpoint import Tensor
from gemmaq.checkpoint.schemes.arrays import Array, Arrays, matrix, misfit, rows_of, weight_settings
from gemmaq.checkpoint.schemes.codes import Codes
from gemmaq.checkpoint.schemes.grouped import Grouped, make
from gemmaq.encodings import ENCODINGS, Kind
from gemmaq.errors import InputError
from gemmaq.files.span import Reader

_SCALES = ("BF16", "F16", "F32")


def compressed_tensor(
    name: str, arrays: Arrays, shape: tuple[int, ...] | None, settings: Mapping[str, Any]
) -> Tensor | None:
    """A matrix of integer codes; None if it is stored in another way, or in the way of a type of gemmaq.

    Args:
        name: Canonical name.
        arrays: Suffix of an array -> file and header entry.
        shape: Shape by the config.
        settings: The quantization settings of the folder.

    Raises:
        InputError: Arrays do not fit.
    """
    is_packed = "weight_packed" in arrays
    if any(len(entry.shape) > 2 for _, entry in arrays.values()):
        return None
    key = "weight_packed" if is_packed else "weight"
    if key not in arrays or "weight_scale" not in arrays or arrays[key][1].dtype not in ("I32", "I8"):
        return None
    if arrays["weight_scale"][1].dtype not in _SCALES or "weight_global_scale" in arrays:
        return None
    words = matrix(arrays, key, ("I32",) if is_packed else ("I8",), name=name)
    rows, columns = words.rows, words.columns
    codes = Codes(words, 8, "signed", columns)
    if is_packed:
        columns = shape[-1] if shape else _columns(arrays)
        codes = _packed(name, arrays, words, columns, settings)
    scales = _scales(name, arrays, rows)
    groups = scales.columns if scales.rows == rows else 1
    if columns % groups:
        raise misfit(name, arrays, columns)
    order = _order(name, arrays, columns, columns // groups)
    kind, zeros = Kind.LINEAR, None
    if "weight_zero_point" in arrays:
        zeros = _zeros(name, arrays, codes, rows=rows, groups=groups)
    middle = 1 << codes.bits - 1
    if zeros is not None and zeros.are(middle, rows):
        zeros = None
    elif zeros is not None:
        kind = Kind.MINIMA
    kind = Kind.OPAQUE if order is not None else kind
    points = zeros if zeros is not None else middle
    decoder = Grouped(codes, scales, points, columns // groups, kind, order)
    label = f"int{codes.bits}-" + ("channel" if groups == 1 else f"g{columns // groups}")
    made = make(name, decoder, (rows, columns), label=label)
    whole = codes.layout == "rows" and words.columns * 32 == columns * codes.bits and scales.rows == rows
    return None if kind is Kind.LINEAR and whole and made.encoding.name in ENCODINGS else made


def _packed(name: str, arrays: Arrays, words: Array, columns: int, settings: Mapping[str, Any]) -> Codes:
    """Codes in words: as a stream, or, as earlier versions wrote them, as many whole ones as a word holds."""
    for bits in _widths(settings):
        if columns and words.columns == -(-columns * bits // 32):
            return Codes(words, bits, "rows", columns)
        if columns and words.columns == -(-columns // (32 // bits)):
            return Codes(words, bits, "loose", columns)
    raise misfit(name, arrays, columns)


def _widths(settings: Mapping[str, Any]) -> list[int]:
    """Bits that codes of the folder may have: those that its settings name, else all."""
    found = [weights.get("num_bits") for weights in weight_settings(settings)]
    return [n for n in found if type(n) is int and 1 <= n <= 8] or list(range(8, 1, -1))


def _columns(arrays: Arrays) -> int:
    """Columns of a matrix by the array that has its shape; 0 if there is none."""
    if "weight_shape" not in arrays or arrays["weight_shape"][1].dtype not in ("I64", "I32"):
        return 0
    with Reader() as reader:
        return int(rows_of(arrays, "weight_shape").read(reader).reshape(-1)[-1])


def _scales(name: str, arrays: Arrays, rows: int) -> Array:
    """The scales: a row of them for each row of the matrix, or a single one."""
    scales = rows_of(arrays, "weight_scale")
    if scales.rows * scales.columns == 1 and rows > 1:
        return scales
    if scales.rows * scales.columns == rows:
        return rows_of(arrays, "weight_scale", 1)
    if scales.rows != rows:
        raise misfit(name, arrays, rows)
    return scales


def _zeros(name: str, arrays: Arrays, codes: Codes, *, rows: int, groups: int) -> Codes:
    """The zero points of groups."""
    span, entry = arrays["weight_zero_point"]
    if entry.dtype == "I32":
        packed = matrix(arrays, "weight_zero_point", ("I32",), name=name)
        if (packed.rows, packed.columns) == (-(-rows * codes.bits // 32), groups):
            return Codes(packed, codes.bits, "outputs first", groups)
    elif entry.dtype == "I8" and codes.layout == "signed":
        stored = rows_of(arrays, "weight_zero_point", groups)
        if stored.rows == rows:
            return Codes(stored, 8, "signed", groups)
    raise InputError(
        f"has zero points {entry.dtype} {list(entry.shape)}, which do not fit {rows} rows of {groups} groups",
        path=span,
        tensor=name,
    )


def _order(name: str, arrays: Arrays, columns: int, group: int) -> Array | None:
    """The group of every column, None if columns lie in the order of groups; -1 stands for that, too."""
    if "weight_g_idx" not in arrays:
        return None
    order = rows_of(arrays, "weight_g_idx")
    if order.columns != columns or order.dtype not in ("I32", "I64"):
        raise misfit(name, arrays, columns)
    with Reader() as reader:
        found = order.read(reader).reshape(-1)
    is_usual = not found.any() or found.min() < 0 or np.array_equal(found, np.arange(columns) // group)
    return None if is_usual else order
