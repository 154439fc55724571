"""GPTQ folders of AutoGPTQ, GPTQModel and AutoRound, and AWQ folders of AutoAWQ.

GPTQ packs codes along the inputs of a matrix and zero points along its outputs; `g_idx` names the group of every
column, and version 1 stores zero points less one. AWQ packs both along the outputs, eight in a word in an order of its
own. Source: qlinear modules of GPTQModel and AutoGPTQ, awq/utils/packing_utils.py of AutoAWQ.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gemmaq.checkpoint import Tensor
from gemmaq.checkpoint.schemes.arrays import Array, Arrays, matrix, misfit, need, rows_of
from gemmaq.checkpoint.schemes.codes import Codes
from gemmaq.checkpoint.schemes.grouped import Grouped, make
from gemmaq.encodings import Kind
from gemmaq.files.span import Reader

_SUFFIXES = ("qweight", "qzeros", "scales")
_WORDS = ("I32", "U32")
_SCALES = ("F16", "BF16", "F32")
_BITS = (2, 3, 4, 8)


def gptq_tensor(name: str, arrays: Arrays, shape: tuple[int, ...] | None, settings: Mapping[str, Any]) -> Tensor:
    """A matrix of a GPTQ folder.

    Args:
        name: Canonical name.
        arrays: Suffix of an array -> file and header entry.
        shape: Shape by the config.
        settings: The quantization settings of the folder.

    Raises:
        InputError: Arrays are missing or do not fit.
    """
    need(arrays, _SUFFIXES, name=name, scheme="GPTQ")
    words, scales = matrix(arrays, "qweight", _WORDS, name=name), matrix(arrays, "scales", _SCALES, name=name)
    zeros, rows = matrix(arrays, "qzeros", _WORDS, name=name), words.columns
    columns = shape[-1] if shape else rows_of(arrays, "g_idx").columns if "g_idx" in arrays else 0
    bits = next((bits for bits in _BITS if words.rows * 32 == columns * bits), 0)
    zero_words = (scales.rows, -(-rows * bits // 32))
    if not bits or scales.columns != rows or (zeros.rows, zeros.columns) != zero_words:
        raise misfit(name, arrays, columns)
    group = _group(scales.rows, columns, settings)
    if not group and "g_idx" not in arrays:
        raise misfit(name, arrays, columns)
    order = _order(name, arrays, columns, group, by_activation=bool(settings.get("desc_act")) and scales.rows > 1)
    added = 1 if is_first_version(settings) else 0
    points = Codes(zeros, bits, "outputs", scales.rows)
    middle = _is_middle(points, rows, added, is_symmetric=settings.get("sym") is True)
    kind = Kind.LINEAR if middle else Kind.MINIMA
    if order is not None or columns % group:
        kind = Kind.OPAQUE
    decoder = Grouped(
        Codes(words, bits, "inputs", columns),
        scales,
        1 << bits - 1 if middle else points,
        group,
        kind,
        order,
        turned=True,
        added=added,
    )
    return make(name, decoder, (rows, columns), label=f"gptq{bits}-g{group or columns}")


def awq_tensor(name: str, arrays: Arrays, shape: tuple[int, ...] | None, settings: Mapping[str, Any]) -> Tensor:
    """A matrix of an AWQ folder; arguments and errors as `gptq_tensor`."""
    has_zeros = settings.get("zero_point") is not False
    need(arrays, _SUFFIXES if has_zeros else ("qweight", "scales"), name=name, scheme="AWQ")
    words, scales = matrix(arrays, "qweight", _WORDS, name=name), matrix(arrays, "scales", _SCALES, name=name)
    rows, columns = 8 * words.columns, words.rows
    zeros = matrix(arrays, "qzeros", _WORDS, name=name) if "qzeros" in arrays else None
    fits = zeros is None or (zeros.rows, zeros.columns) == (scales.rows, words.columns)
    group = _group(scales.rows, columns, settings)
    if scales.columns != rows or not fits or not group or (shape and shape[-1] != columns):
        raise misfit(name, arrays, shape[-1] if shape else columns)
    points = Codes(zeros, 4, "awq", scales.rows) if zeros is not None else None
    middle = points is None or _is_middle(points, rows, 0, is_symmetric=False)
    kind = Kind.OPAQUE if columns % group else Kind.LINEAR if middle else Kind.MINIMA
    codes = Codes(words, 4, "awq", columns)
    decoder = Grouped(codes, scales, 8 if middle or points is None else points, group, kind, turned=True)
    return make(name, decoder, (rows, columns), label=f"awq4-g{group}")


def is_first_version(settings: Mapping[str, Any]) -> bool:
    """Whether stored zero points are one less than they count."""
    form: object = settings.get("checkpoint_format", "gptq")
    return form != "gptq_v2"


def _group(groups: int, columns: int, settings: Mapping[str, Any]) -> int:
    """Columns of a group, by the settings if they fit the number of groups; 0 if columns do not divide into these."""
    asked = settings.get("group_size", settings.get("q_group_size"))
    if isinstance(asked, int) and not isinstance(asked, bool) and asked > 0 and -(-columns // asked) == groups:
        return asked
    return columns // groups if columns % groups == 0 else 0


def _order(name: str, arrays: Arrays, columns: int, group: int, *, by_activation: bool) -> Array | None:
    """The group of every column if columns are not in the order of groups.

    Of a file whose header alone is here there are only zeros: then the settings say it.
    """
    if "g_idx" not in arrays:
        return None
    order = rows_of(arrays, "g_idx")
    if order.columns != columns or order.dtype not in ("I32", "I64"):
        raise misfit(name, arrays, columns)
    with Reader() as reader:
        found = order.read(reader).reshape(-1)
    if not found.any():
        return order if by_activation else None
    if group and np.array_equal(found, np.arange(columns) // group):
        return None
    return order


def _is_middle(points: Codes, rows: int, added: int, *, is_symmetric: bool) -> bool:
    """Whether all zero points are the middle of the codes; those of a file of which only the header is here are zeros.

    Args:
        points: The zero points.
        rows: Rows of the matrix.
        added: Added to the stored ones.
        is_symmetric: Whether the settings say so.
    """
    with Reader() as reader:
        if not points.array.read(reader).any():
            return is_symmetric
    return points.are(1 << points.bits - 1, rows, added=added)
