"""Encodings: the quantization types, as data. One module and one entry in ENCODINGS each.

An encoding turns rows of f32 weights into codes and scales, those into bytes, and back. The registry is plain data and
cheap to import; `codec` loads the compiled loops of a type when they are first needed.

Source of the block layouts: ggml's block structs (ggml-common.h).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from importlib import import_module
from typing import TYPE_CHECKING, Any

from gemmaq.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    F32 = NDArray[np.float32]
    U8 = NDArray[np.uint8]


class Kind(Enum):
    """How an encoding turns a code into a weight."""

    FLOAT = "weights stored one by one as floating point numbers"
    LINEAR = "scale * (code - zero)"
    MINIMA = "scale * code + minimum"
    CODEBOOK = "scale * codebook[code]"
    SUPER = "LINEAR or MINIMA, with scales that are integer multiples of one scale a super-block"
    OPAQUE = "a type of GGUF whose weights can be read but whose codes gemmaq does not know"


@dataclass(frozen=True, slots=True)
class Encoding:
    """One way to represent weights, with everything the other rooms have to know of it.

    Attributes:
        name: the name users type, lower case (`q4_0`).
        kind: how a code becomes a weight.
        block: weights in a block; rows are a whole number of blocks.
        block_bytes: size of a block in a file that has no layout of its own for codes and scales.
        module: module of this package with the loops, in its dict CODECS.
        bits: bits of a code; 0 for floats.
        zero: code of the weight 0, None for types with minima or a codebook.
        codebook: the level of every code in units of the scale, for CODEBOOK types.
        scales: number type of the stored scales: `f16` in ggml's blocks, `bf16` in MLX's own types, empty for floats.
        ggml_type: number of the type in GGUF tensor infos, None if GGUF has no such type.
        file_type: GGUF's general.file_type (llama.cpp's llama_ftype) of a model in this type, None if there is none.
        mlx: whether MLX folders hold it, as an affine type with the same bits and group.
        compressed_tensors: whether Hugging Face folders hold it, as compressed-tensors' symmetric integers.
        fallback: type that llama-quantize takes for rows that are no multiple of the block, None for F16.
    """

    name: str
    kind: Kind
    block: int
    block_bytes: int
    module: str
    bits: int = 0
    zero: int | None = None
    codebook: tuple[int, ...] = ()
    scales: str = ""
    ggml_type: int | None = None
    file_type: int | None = None
    mlx: bool = False
    compressed_tensors: bool = False
    fallback: str | None = None

    @property
    def label(self) -> str:
        """The name as in file names and tables (`Q4_0`)."""
        return self.name.upper()

    @property
    def is_float(self) -> bool:
        """Whether weights are stored one by one as floating point numbers."""
        return self.kind is Kind.FLOAT

    @property
    def has_free_scales(self) -> bool:
        """Whether every block has a scale of its own that can be any FP16 or BF16 number: calibrated methods ask it."""
        return self.scales in ("f16", "bf16") and self.kind is not Kind.SUPER

    @property
    def holds_portable(self) -> bool:
        """Whether its scales can be chosen so that BF16 and FP16 both hold them exactly."""
        return self.scales == "f16" and self.kind is not Kind.SUPER

    def same_codes(self, other: Encoding) -> bool:
        """Whether codes and scales of one type mean the same in the other, as those of Q4_1 do in MLX's affine4."""
        if self.kind is not other.kind or self.kind not in _SHARED_KINDS:
            return self == other
        mine, theirs = ((e.bits, e.zero, e.block, e.codebook) for e in (self, other))
        return mine == theirs

    def fits(self, columns: int) -> bool:
        """Whether a row of `columns` weights can be stored."""
        return columns % self.block == 0

    def row_bytes(self, columns: int) -> int:
        """Bytes of one row of `columns` weights."""
        return columns // self.block * self.block_bytes


@dataclass(frozen=True, slots=True)
class Quantized:
    """Codes and scales of some rows, for a container to pack.

    A weight is `scale * (code - zero)`, `scale * code + minimum` where the encoding has minima, or
    `scale * codebook[code]` where it has a codebook.

    Attributes:
        codes: u8 [rows, columns].
        scales: f32 [rows, columns / group].
        minima: f32, shaped like scales, or None.
        supers: f32 [rows, columns / block], for SUPER types: the scale is `supers * scales`, scales are integers.
        super_minima: shaped like supers: the minimum is `super_minima * minima`; negative in ggml's types.
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
    """Functions of one encoding, all over whole rows.

    Attributes:
        read: u8 [rows, row bytes] -> Values; None for types without a layout of their own.
        nearest: f32 [rows, columns] -> Values, by ggml's rule, or mlx's for affine types; None for types only read.
        pack: Values -> u8 [rows, row bytes]; None for types only read, or without a layout of their own.
    """

    read: Callable[[U8], Values] | None = None
    nearest: Callable[[F32], Values] | None = None
    pack: Callable[[Values], U8] | None = None


_SHARED_KINDS = frozenset((Kind.LINEAR, Kind.MINIMA, Kind.CODEBOOK))
"""Kinds whose types are equal if bits, block, zero and codebook are."""


def _float(name: str, width: int, ggml_type: int, file_type: int, mlx: bool = False) -> Encoding:
    return Encoding(name, Kind.FLOAT, 1, width, "floats", ggml_type=ggml_type, file_type=file_type, mlx=mlx)


def _affine(name: str, bits: int, group: int) -> Encoding:
    """A type of MLX's own: a BF16 scale and minimum a group."""
    size = group * bits // 8 + 4
    return Encoding(name, Kind.MINIMA, group, size, "affine", bits=bits, scales="bf16", mlx=True)


ENCODINGS: dict[str, Encoding] = {
    e.name: e
    for e in (
        _float("f32", 4, ggml_type=0, file_type=0),
        _float("f16", 2, ggml_type=1, file_type=1),
        _float("bf16", 2, ggml_type=30, file_type=32, mlx=True),
        Encoding(
            "q8_0", Kind.LINEAR, 32, 34, "legacy", bits=8, zero=128, scales="f16",
            ggml_type=8, file_type=7, mlx=True, compressed_tensors=True,
        ),
        Encoding(
            "q4_0", Kind.LINEAR, 32, 18, "legacy", bits=4, zero=8, scales="f16",
            ggml_type=2, file_type=2, mlx=True, compressed_tensors=True,
        ),
        Encoding("q4_1", Kind.MINIMA, 32, 20, "legacy", bits=4, scales="f16", ggml_type=3, file_type=3, mlx=True),
        Encoding(
            "q5_0", Kind.LINEAR, 32, 22, "legacy", bits=5, zero=16, scales="f16", ggml_type=6, file_type=8, mlx=True
        ),
        Encoding("q5_1", Kind.MINIMA, 32, 24, "legacy", bits=5, scales="f16", ggml_type=7, file_type=9),
        Encoding(
            "iq4_nl", Kind.CODEBOOK, 32, 18, "iquants", bits=4, scales="f16", ggml_type=20, file_type=25,
            codebook=(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113),
        ),
        Encoding(
            "q6_k", Kind.SUPER, 256, 210, "kquants", bits=6, zero=32, scales="f16",
            ggml_type=14, file_type=18, fallback="q8_0",
        ),
        Encoding(
            "q4_k", Kind.SUPER, 256, 144, "kquants_affine", bits=4, scales="f16",
            ggml_type=12, file_type=15, fallback="q5_0",
        ),
        Encoding(
            "q5_k", Kind.SUPER, 256, 176, "kquants_affine", bits=5, scales="f16",
            ggml_type=13, file_type=17, fallback="q5_1",
        ),
        _affine("affine4", 4, 32),
        _affine("affine4-g64", 4, 64),
        _affine("affine8", 8, 32),
        _affine("affine8-g64", 8, 64),
    )
}  # fmt: skip


def by_ggml_type(number: int) -> Encoding | None:
    """The encoding with this type number in GGUF, None if the registry has none."""
    return next((e for e in ENCODINGS.values() if e.ggml_type == number), None)


def find(name: str, types: Iterable[str] = ENCODINGS) -> Encoding:
    """The encoding of a name, upper or lower case.

    Args:
        name: as the user wrote it.
        types: names that the message lists.

    Raises:
        UsageError: no encoding has this name.
    """
    encoding = ENCODINGS.get(name.lower().removesuffix("-g32"))
    if encoding is None:
        raise UsageError(f"unknown type {name!r}", f"known types: {', '.join(types)}")
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
