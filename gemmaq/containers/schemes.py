"""How compressed-tensors stores quantized matrices: arrays, constants and settings of a type.

Source of the layouts: the compressed-tensors library, compressors and quantization.quant_scheme.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from gemmaq.encodings import Encoding, Kind
from gemmaq.encodings.bitstream import pack_codes, pack_scales
from gemmaq.planning.format import Constant, PieceSpec

if TYPE_CHECKING:
    from gemmaq.encodings import U8, Quantized

_SCALES = {"e4m3": "F8_E4M3", "e8m0": "U8"}
"""Number type of scales that take a byte -> their dtype in the file."""


_INPUTS = {
    "num_bits": 8, "type": "float", "symmetric": True, "strategy": "token", "group_size": None, "dynamic": True,
}  # fmt: skip
"""Activations in FP8, each token with a scale found while the model runs."""


def pieces(encoding: Encoding, columns: int) -> tuple[PieceSpec, ...]:
    """The arrays of a matrix: codes, and scales."""
    packed, groups = columns * encoding.bits // 8, columns // encoding.group(columns)
    scales = PieceSpec("weight_scale", "BF16", groups, 2 * groups)
    if encoding.kind is not Kind.MINIFLOAT:
        return PieceSpec("weight_packed", "I32", packed // 4, packed), scales
    if encoding.has_byte_scales:
        scales = PieceSpec("weight_scale", _SCALES[encoding.scales], groups, groups)
    if encoding.bits == 8:
        return PieceSpec("weight", "F8_E4M3", packed, packed), scales
    return PieceSpec("weight_packed", "U8", packed, packed), scales


def constants(name: str, shape: tuple[int, ...], encoding: Encoding, divisor: float) -> tuple[Constant, ...]:
    """Small arrays that go with a matrix: its shape, where integers are packed, or the divisor of its scales."""
    if encoding.divisor != 1:
        return (Constant(f"{name}_global_scale", "F32", (1,), struct.pack("<f", divisor)),)
    if encoding.kind is Kind.MINIFLOAT:
        return ()
    return (Constant(f"{name}_shape", "I64", (len(shape),), struct.pack(f"<{len(shape)}q", *shape)),)


def packing(encoding: Encoding) -> str:
    """The format of a matrix, as settings name it."""
    if encoding.kind is not Kind.MINIFLOAT:
        return "pack-quantized"
    return (
        "float-quantized" if not encoding.block else f"{encoding.name}-{'pack-' if encoding.bits < 8 else ''}quantized"
    )


def settings(encoding: Encoding) -> dict[str, Any]:
    """The settings of a type, for a group of modules.

    Only weights are quantized; but vLLM has no kernel on CPUs for FP8 weights alone, so inputs of FP8 matrices are
    rounded token by token while the model runs, as the files of that format on the Hub say.
    """
    weights: dict[str, Any] = {
        "num_bits": encoding.bits,
        "type": "float" if encoding.kind is Kind.MINIFLOAT else "int",
        "symmetric": True,
        "strategy": "tensor_group" if encoding.divisor != 1 else "group" if encoding.block else "channel",
        "group_size": encoding.block or None,
        "dynamic": False,
    }
    if encoding.scales == "e8m0":
        weights["scale_dtype"] = "torch.uint8"
    elif encoding.scales == "e4m3":
        weights["scale_dtype"] = "torch.float8_e4m3fn"
    inputs = _INPUTS if encoding.kind is Kind.MINIFLOAT and not encoding.block else None
    return {"weights": weights, "input_activations": inputs, "output_activations": None}


def pack(encoding: Encoding, values: Quantized, dtype: str, divisor: float) -> tuple[U8, ...]:
    """Codes and scales as the arrays of `pieces`; scales in the safetensors dtype given, multiplied by the divisor."""
    scales = values.scales * np.float32(divisor) if divisor != 1 else values.scales
    return pack_codes(encoding.bits, values.codes), pack_scales(encoding, dtype, scales)
