"""Encodings: the quantization types, as data. One module and one entry in ENCODINGS (`registry.py`) each.

An encoding turns rows of f32 weights into codes and scales, those into bytes, and back. The registry is plain data and
cheap to import; `codec` loads the compiled loops of a type when they are first needed.

Source of the block layouts: ggml's block structs (ggml-common.h).
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from typing import TYPE_CHECKING

from gemmaq.encodings.encoding import Codec, Encoding, Fused, Kind, Quantized, Values
from gemmaq.encodings.listing import listed
from gemmaq.encodings.registry import ENCODINGS
from gemmaq.errors import nearest, unknown

if TYPE_CHECKING:
    from gemmaq.encodings.encoding import F32, U8, U16

__all__ = [
    "ENCODINGS", "F32", "U8", "U16", "Codec", "Encoding", "Fused", "Kind", "Quantized", "Values", "by_ggml_type",
    "codec", "dequantize", "find", "listed",
]  # fmt: skip


_MEANT = {
    **dict.fromkeys(("int4", "4", "4bit", "4-bit", "4bits", "q4", "i4", "nf4", "w4a16", "q4_2", "q4_3"), "q4_0"),
    **dict.fromkeys(("int8", "8", "8bit", "8-bit", "8bits", "q8", "i8", "w8a16", "q8_1"), "q8_0"),
    **dict.fromkeys(("16", "fp16", "float16", "half"), "f16"),
    **dict.fromkeys(("32", "fp32", "float32", "float"), "f32"),
    **{"bfloat16": "bf16", "fp8": "fp8", "fp4": "mxfp4", "q5": "q5_0", "q6": "q6_k", "q3": "q3_k_m", "q2": "q2_k"},
}
"""What people write, and the type that they most likely mean."""


def by_ggml_type(number: int) -> Encoding | None:
    """The encoding with this type number in GGUF, None if the registry has none."""
    return next((e for e in ENCODINGS.values() if e.ggml_type == number), None)


def find(name: str, types: Iterable[str] = ENCODINGS) -> Encoding:
    """The encoding of a name, upper or lower case.

    Args:
        name: as the user wrote it.
        types: names that the message lists, or takes the nearest from.

    Raises:
        UsageError: no encoding has this name.
    """
    encoding = ENCODINGS.get(name.lower().removesuffix("-g32"))
    if encoding is None:
        types = list(types)
        if nearest(name, types, _MEANT):
            raise unknown("type", name, types, meant=_MEANT, every="gemmaq convert --help lists all types")
        raise unknown("type", name, listed(types))
    return encoding


def dequantize(encoding: Encoding, values: Values) -> F32:
    """Weights of codes and scales, f32 [rows, columns]."""
    if encoding.is_float or not isinstance(values, Quantized):
        return values  # type: ignore[no-any-return]
    import numpy as np

    from gemmaq.encodings import kernels

    group = values.codes.shape[1] // values.scales.shape[1]
    codes, scales = values.codes.reshape(-1, group), _multiplied(values.scales, values.supers)
    out = np.empty(codes.shape, np.float32)
    if encoding.codebook:
        kernels.dequantize_codebook(codes, scales, np.array(encoding.codebook, np.float32), out)
    elif values.minima is not None:
        kernels.dequantize_affine(codes, scales, _multiplied(values.minima, values.super_minima), out)
    else:
        kernels.dequantize(codes, scales, np.float32(encoding.zero or 0), out)
    return out.reshape(values.codes.shape)


def _multiplied(numbers: F32, supers: F32 | None) -> F32:
    """Scales or minima, f32 [groups], multiplied by those of their super-blocks if they have any."""
    if supers is None:
        return numbers.reshape(-1)
    return (numbers.reshape(supers.size, -1) * supers.reshape(-1, 1)).reshape(-1)


def codec(encoding: Encoding) -> Codec:
    """Functions of an encoding; the first call imports the compiler."""
    codecs: dict[str, Codec] = import_module(f"{__name__}.{encoding.module}").CODECS
    return codecs[encoding.name]
