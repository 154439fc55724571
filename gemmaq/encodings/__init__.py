"""Which numbers can be represented: the weight encodings, as data.

An encoding turns rows of f32 weights into codes and scales, these into bytes, and back. The registry below is
plain data and cheap to import; the compiled loops are loaded by `codec` when they are first needed.

Source of the block layouts: ggml's block structs (ggml-common.h).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from gemmaq.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    F32 = NDArray[np.float32]
    U8 = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Encoding:
    """One way to represent weights.

    Attributes:
        name: the name users type, lower case (`q4_0`).
        ggml_type: number of the type in GGUF tensor infos, None if GGUF has no such type.
        block: weights a block; a row must be a multiple of it.
        block_bytes: bytes a block takes where a container has no layout of its own.
        module: module of this package whose CODECS holds the loops.
        bits: bits a code takes; 0 where weights are stored one by one.
        zero: the code that stands for 0, None where every group has a minimum of its own.
    """

    name: str
    ggml_type: int | None
    block: int
    block_bytes: int
    module: str
    bits: int = 0
    zero: int | None = None

    @property
    def label(self) -> str:
        """The name as file names and tables show it (`Q4_0`)."""
        return self.name.upper()

    @property
    def is_float(self) -> bool:
        """Whether weights are stored one by one as floating point numbers."""
        return self.block == 1

    def same_codes(self, other: Encoding) -> bool:
        """Whether codes of the one mean the same in the other, as those of Q4_1 do in MLX's affine type."""
        return self == other or (
            not self.is_float and (self.bits, self.zero, self.block) == (other.bits, other.zero, other.block)
        )

    def fits(self, columns: int) -> bool:
        """Whether a row of `columns` weights can be stored."""
        return columns % self.block == 0

    def row_bytes(self, columns: int) -> int:
        """Bytes of one row of `columns` weights."""
        return columns // self.block * self.block_bytes


@dataclass(frozen=True, slots=True)
class Quantized:
    """Codes and scales of some rows: what every container packs.

    A weight is `scale * (code - zero)`, or `scale * code + minimum` where the encoding has minima.

    Attributes:
        codes: u8 [rows, columns].
        scales: f32 [rows, columns / group].
        minima: f32, shaped like scales, or None.
        supers: f32 [rows, columns / block]; where given, the scale is `supers * scales` and scales are integers.
        super_minima: the same for minima, where there are some; negative in ggml's types.
    """

    codes: U8
    scales: F32
    minima: F32 | None = None
    supers: F32 | None = None
    super_minima: F32 | None = None


Values = Any
"""F32 [rows, columns] for float encodings, `Quantized` for all others."""


@dataclass(frozen=True, slots=True)
class Codec:
    """The loops of one encoding, all over whole rows.

    Attributes:
        read: u8 [rows, row bytes] -> Values. None if no file holds it in this form.
        nearest: f32 [rows, columns] -> Values; ggml's own rule, or mlx's for affine types. None if it can be read only.
        pack: Values -> u8 [rows, row bytes]. None if it can be read only, or no file holds it in this form.
    """

    read: Callable[[U8], Values] | None = None
    nearest: Callable[[F32], Values] | None = None
    pack: Callable[[Values], U8] | None = None


ENCODINGS: dict[str, Encoding] = {
    e.name: e
    for e in (
        Encoding("f32", 0, 1, 4, "floats"),
        Encoding("f16", 1, 1, 2, "floats"),
        Encoding("bf16", 30, 1, 2, "floats"),
        Encoding("q8_0", 8, 32, 34, "legacy", bits=8, zero=128),
        Encoding("q4_0", 2, 32, 18, "legacy", bits=4, zero=8),
        Encoding("q4_1", 3, 32, 20, "legacy", bits=4),
        Encoding("q5_0", 6, 32, 22, "legacy", bits=5, zero=16),
        Encoding("q5_1", 7, 32, 24, "legacy", bits=5),
        Encoding("q6_k", 14, 256, 210, "kquants", bits=6, zero=32),
        Encoding("q4_k", 12, 256, 144, "kquants_affine", bits=4),
        Encoding("q5_k", 13, 256, 176, "kquants_affine", bits=5),
        Encoding("affine4", None, 32, 20, "affine", bits=4),
        Encoding("affine4-g64", None, 64, 36, "affine", bits=4),
        Encoding("affine8", None, 32, 36, "affine", bits=8),
        Encoding("affine8-g64", None, 64, 68, "affine", bits=8),
    )
}

BY_GGML_TYPE: dict[int, Encoding] = {e.ggml_type: e for e in ENCODINGS.values() if e.ggml_type is not None}


def find(name: str, known: Iterable[str] = ENCODINGS) -> Encoding:
    """The encoding of that name, in any case.

    Args:
        name: as a user wrote it.
        known: all that may be said in its place, for the message.

    Raises:
        UsageError: there is none.
    """
    encoding = ENCODINGS.get(name.lower().removesuffix("-g32"))
    if encoding is None:
        raise UsageError(f"unknown type {name!r}", f"known types: {', '.join(known)}")
    return encoding


def dequantize(encoding: Encoding, values: Values) -> F32:
    """The weights that codes and scales stand for, f32 [rows, columns]."""
    if encoding.is_float or not isinstance(values, Quantized):
        return values  # type: ignore[no-any-return]
    import numpy as np

    from gemmaq.encodings import kernels

    group = values.codes.shape[1] // values.scales.shape[1]
    codes, scales = values.codes.reshape(-1, group), _multiplied(values.scales, values.supers)
    out = np.empty(codes.shape, np.float32)
    if values.minima is not None:
        kernels.dequantize_affine(codes, scales, _multiplied(values.minima, values.super_minima), out)
    else:
        kernels.dequantize(codes, scales, np.float32(encoding.zero or 0), out)
    return out.reshape(values.codes.shape)


def _multiplied(numbers: F32, supers: F32 | None) -> F32:
    """Scales or minima, f32 [groups], from what they are multiples of, if they are."""
    if supers is None:
        return numbers.reshape(-1)
    return (numbers.reshape(supers.size, -1) * supers.reshape(-1, 1)).reshape(-1)


def codec(encoding: Encoding) -> Codec:
    """The loops of an encoding (imports the compiler on first use)."""
    codecs: dict[str, Codec] = import_module(f"{__name__}.{encoding.module}").CODECS
    return codecs[encoding.name]
