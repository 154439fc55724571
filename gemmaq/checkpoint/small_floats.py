"""Matrices of MLX and compressed-tensors folders whose codes are floating point numbers of four or eight bits."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from gemmaq.checkpoint import Part, Tensor
from gemmaq.encodings import ENCODINGS, Encoding
from gemmaq.errors import InputError
from gemmaq.files.safetensors_header import ITEM_BYTES, Entry
from gemmaq.files.span import FileSpan, Reader

_Arrays = Mapping[str, tuple[FileSpan, Entry]]

_SCALES = {"U8": ("e8m0", "e4m3"), "F8_E8M0": ("e8m0",), "F8_E4M3": ("e4m3",)}
"""Dtype of an array of scales -> number types that it may hold."""


def small_float_tensor(name: str, kind: str, arrays: _Arrays) -> Tensor | None:
    """A matrix whose scales take a byte each, or whose codes are FP8; None if it is none.

    Args:
        name: Canonical name.
        kind: `mlx` or `compressed-tensors`.
        arrays: Suffix of an array -> file and header entry.

    Raises:
        InputError: Arrays do not fit each other, or make a type that gemmaq does not know.
    """
    suffixes = ("weight", "scales") if kind == "mlx" else ("weight_packed", "weight_scale")
    if kind == "compressed-tensors" and "weight" in arrays:
        suffixes = ("weight", "weight_scale")
    if kind not in ("mlx", "compressed-tensors") or any(suffix not in arrays for suffix in suffixes):
        return None
    (span, codes), (_, scales) = (arrays[suffix] for suffix in suffixes)
    is_row = codes.dtype == "F8_E4M3" and scales.dtype in ("BF16", "F16", "F32")
    if "biases" in arrays or not (is_row or scales.dtype in _SCALES):
        return None
    encoding, columns = _fp8(codes, scales) if is_row else _type(codes, scales)
    if encoding is None or codes.shape[:-1] != scales.shape[:-1]:
        raise InputError(
            f"has codes {codes.dtype} {list(codes.shape)} and scales {scales.dtype} {list(scales.shape)}, "
            "which cannot be read",
            path=span,
            tensor=name,
        )
    parts = tuple(
        Part(arrays[suffix][0], e.offset, e.shape[-1] * ITEM_BYTES[e.dtype], e.dtype)
        for suffix, e in zip(suffixes, (codes, scales), strict=True)
    )
    divisor = _divisor(name, arrays) if "weight_global_scale" in arrays else 1.0
    return Tensor(name, (*codes.shape[:-1], columns), encoding, parts, kind, divisor=divisor)


def _divisor(name: str, arrays: _Arrays) -> float:
    """The number that the scales of a matrix are divided by.

    Raises:
        InputError: It is no positive number.
    """
    span, entry = arrays["weight_global_scale"]
    with Reader() as reader:
        number = float(np.frombuffer(reader.bytes(span, entry.offset, 4), np.float32)[0]) if entry.dtype == "F32" else 0
    if not 0 < number < np.inf:
        raise InputError(f"has the global scale {number:g} {entry.dtype}", path=span, tensor=name)
    return number


def _fp8(codes: Entry, scales: Entry) -> tuple[Encoding | None, int]:
    """FP8 and the number of columns, if there is a scale a row."""
    return (ENCODINGS["fp8"], codes.shape[-1]) if scales.shape == (*codes.shape[:-1], 1) else (None, 0)


def _type(codes: Entry, scales: Entry) -> tuple[Encoding | None, int]:
    """The type by the number of codes for each scale, and the number of columns."""
    packed = codes.shape[-1] * ITEM_BYTES[codes.dtype] if codes.shape else 0
    groups = scales.shape[-1] if scales.shape else 0
    for encoding in ENCODINGS.values():
        fits = encoding.has_byte_scales and encoding.scales in _SCALES[scales.dtype]
        if fits and groups and packed * 8 == groups * encoding.block * encoding.bits:
            return encoding, groups * encoding.block
    return None, 0
