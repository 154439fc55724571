"""Quantized matrices of MLX and compressed-tensors folders, and the encoding of their codes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from gemmaq.checkpoint import Part, Tensor
from gemmaq.encodings import ENCODINGS, Encoding, Kind
from gemmaq.encodings.bitstream import unpack_floats
from gemmaq.errors import InputError
from gemmaq.files.safetensors_header import ITEM_BYTES, Entry
from gemmaq.files.span import FileSpan, Reader

_SCALE_DTYPES = ("BF16", "F16", "F32")
_SAMPLE_ROWS = 64


def quantized_tensor(
    name: str,
    kind: str,
    arrays: Mapping[str, tuple[FileSpan, Entry]],
    shape: tuple[int, ...] | None,
    *,
    rowwise: bool = False,
) -> Tensor:
    """A matrix that is stored as codes and scales.

    Args:
        name: Canonical name.
        kind: `mlx` or `compressed-tensors`.
        arrays: Suffix of an array -> file and header entry.
        shape: Shape by the config; the arrays of MLX do not tell the number of columns.
        rowwise: Whether a scale for all columns of a row is one for the row, not for a group as long as the row.

    Raises:
        InputError: Arrays are missing or do not fit, or the type cannot be read.
    """
    suffixes = ("weight", "scales", "biases") if kind == "mlx" else ("weight_packed", "weight_scale")
    span = next(iter(arrays.values()))[0]
    missing = [suffix for suffix in suffixes if suffix not in arrays]
    if missing or kind == "safetensors":
        present = ", ".join(sorted(arrays))
        raise InputError(f"is stored as {present}, no quantization known here", path=span, tensor=name)
    if "weight_zero_point" in arrays:
        raise InputError("is quantized asymmetrically", "only symmetric int4 and int8 are read", path=span, tensor=name)
    if "weight_g_idx" in arrays:
        raise InputError(
            "has its columns in another order", "only columns as they lie are read", path=span, tensor=name
        )
    entries = [arrays[suffix][1] for suffix in suffixes]
    words, scales = entries[:2]
    leading = words.shape[:-1]
    if words.dtype not in ("U32", "I32") or not leading or any(e.shape[:-1] != leading for e in entries):
        raise InputError(f"the arrays of tensor {name} do not belong together", path=span)
    if any(e.dtype not in _SCALE_DTYPES or e.shape != scales.shape for e in entries[1:]):
        raise InputError(f"the scales of tensor {name} are {scales.dtype} {list(scales.shape)}", path=span)
    columns = shape[-1] if shape is not None and len(shape) == len(words.shape) else 0
    groups, packed_bits = scales.shape[-1], 32 * words.shape[-1]
    if not columns or not groups or packed_bits % columns or columns % groups:
        raise InputError(f"the arrays of tensor {name} do not fit {columns} columns", path=span)
    layout = (packed_bits // columns, columns // groups)
    parts = tuple(
        Part(arrays[suffix][0], e.offset, e.shape[-1] * ITEM_BYTES[e.dtype], e.dtype)
        for suffix, e in zip(suffixes, entries, strict=True)
    )
    blocks = (layout[1],) if groups > 1 else (0, columns) if rowwise else (columns, 0)
    encoding = _stream_type(kind, Kind.LINEAR, layout[0], blocks)
    if kind == "mlx" and (encoding is None or not _is_symmetric(parts, math.prod(leading), encoding.zero or 0)):
        encoding = _stream_type(kind, Kind.MINIMA, layout[0], blocks)
    if encoding is None:
        raise InputError(f"has {layout[0]} bits in groups of {layout[1]}, which cannot be read", path=span, tensor=name)
    return Tensor(name, (*leading, columns), encoding, parts, kind)


def _stream_type(folder: str, kind: Kind, bits: int, blocks: Sequence[int]) -> Encoding | None:
    """The type of that kind that folders hold with so many bits in the first of the blocks that has one."""
    held = [e for e in ENCODINGS.values() if (e.mlx if folder == "mlx" else e.compressed_tensors)]
    found = [e for block in blocks for e in held if (e.kind, e.bits, e.block) == (kind, bits, block)]
    return min(found, key=lambda e: (blocks.index(e.block), e.ggml_type is not None), default=None)


def _is_symmetric(parts: tuple[Part, ...], rows: int, zero: int) -> bool:
    """Whether, in a sample of rows, every bias is -zero times its scale."""
    places = np.unique(np.linspace(0, rows - 1, min(rows, _SAMPLE_ROWS)).astype(int))
    with Reader() as reader:
        for row in places.tolist():
            numbers = []
            for part in parts[1:]:
                raw = reader.bytes(part.span, part.offset + row * part.row_bytes, part.row_bytes)
                row_bytes = np.frombuffer(raw, np.uint8).reshape(1, -1)
                numbers.append(unpack_floats(ENCODINGS[part.dtype.lower()], row_bytes))
            if not np.array_equal(numbers[1], -zero * numbers[0]):
                return False
    return True
