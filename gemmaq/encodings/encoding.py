"""What an encoding is: its data, its codes and scales, its functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    F32 = NDArray[np.float32]
    U8 = NDArray[np.uint8]
    U16 = NDArray[np.uint16]


class Kind(Enum):
    """How an encoding turns a code into a weight."""

    FLOAT = "weights stored one by one as floating point numbers"
    LINEAR = "scale * (code - zero)"
    MINIMA = "scale * code + minimum"
    CODEBOOK = "scale * codebook[code]"
    MINIFLOAT = "CODEBOOK, the codes being floating point numbers of few bits"
    SUPER = "LINEAR, MINIMA or CODEBOOK, with scales that are multiples of one scale a super-block"
    GRID = "SUPER with a codebook, of whose codes only some combinations can lie side by side"
    OPAQUE = "a type of GGUF whose weights can be read but whose codes gemmaq does not know"


@dataclass(frozen=True, slots=True)
class Encoding:
    """One way to represent weights, with everything the other rooms have to know of it.

    Attributes:
        name: the name users type, lower case (`q4_0`).
        kind: how a code becomes a weight.
        block: weights in a block; rows are a whole number of blocks. 0 for a block as long as the row.
        block_bytes: size of a block in a file that has no layout of its own for codes and scales; that of its scale
            where the row is the block.
        module: module of this package with the loops, in its dict CODECS.
        bits: bits of a code; 0 for floats.
        zero: code of the weight 0, None for types with minima or a codebook.
        codebook: the level of every code in units of the scale, for CODEBOOK, MINIFLOAT, GRID and some SUPER types.
        scales: number type of the stored scales: `f16` in ggml's blocks, `bf16` in MLX's own types, `e8m0` or `e4m3`
            (`small_floats`) where the codes are floating point numbers themselves, empty for floats.
        ggml_type: number of the type in GGUF tensor infos, None if GGUF has no such type.
        file_type: GGUF's general.file_type (llama.cpp's llama_ftype) of a model in this type, None if there is none.
        mlx: whether MLX folders hold it, as an affine type with the same bits and group, or under its own name.
        compressed_tensors: whether Hugging Face folders hold it, by a scheme of compressed-tensors.
        fallback: type that llama-quantize takes for rows that are no multiple of the block, None for F16.
        weighted: whether its codec has a rule of ggml for errors weighed by an importance matrix.
        needs_importance: whether layers' matrices cannot be quantized to it without an importance matrix.
        plain: whether ggml has a rule for weights without importance, which tables need.
    """

    name: str
    kind: Kind
    block: int
    block_bytes: int
    module: str
    bits: int = 0
    zero: int | None = None
    codebook: tuple[float, ...] = ()
    scales: str = ""
    ggml_type: int | None = None
    file_type: int | None = None
    mlx: bool = False
    compressed_tensors: bool = False
    fallback: str | None = None
    weighted: bool = False
    needs_importance: bool = False
    plain: bool = True

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
        return self.scales in ("f16", "bf16") and self.kind not in (*_TWO_LEVELS, Kind.MINIFLOAT)

    @property
    def has_byte_scales(self) -> bool:
        """Whether a scale is a floating point number of one byte, a power of two for example."""
        return self.scales in ("e8m0", "e4m3")

    @property
    def divisor(self) -> float:
        """What its scales are divided by where the container has a divisor for them: a power of two, so exactly."""
        return 64.0 if self.scales == "e4m3" else 1.0

    @property
    def weighs_errors(self) -> bool:
        """Whether method importance writes it: by a rule of its codec, or by a search of the method's own."""
        return self.weighted or self.has_free_scales

    @property
    def holds_portable(self) -> bool:
        """Whether its scales can be chosen so that BF16 and FP16 both hold them exactly."""
        return self.scales == "f16" and self.kind not in _TWO_LEVELS

    def same_codes(self, other: Encoding) -> bool:
        """Whether codes and scales of one type mean the same in the other, as those of Q4_1 do in MLX's affine4."""
        if self.kind is not other.kind or self.kind not in _SHARED_KINDS:
            return self == other
        mine, theirs = ((e.bits, e.zero, e.block, e.codebook) for e in (self, other))
        return mine == theirs

    def refines(self, other: Encoding, columns: int) -> bool:
        """Whether codes of another type mean the same here if scales are repeated: blocks are parts of its blocks.

        So Q4_0 holds what has 4 bits around zero and a scale for 128 weights, or for a row.
        """
        if self.kind is not other.kind or self.kind not in (Kind.LINEAR, Kind.MINIMA) or not self.block:
            return False
        is_part = other.group(columns) % self.block == 0 and other.group(columns) > self.block
        return is_part and (self.bits, self.zero) == (other.bits, other.zero)

    def group(self, columns: int) -> int:
        """Weights in a block of a row of `columns` weights."""
        return self.block or columns

    @property
    def multiple(self) -> int:
        """The number that the weights of a row have to be a multiple of."""
        return self.block or _WHOLE

    def fits(self, columns: int) -> bool:
        """Whether a row of `columns` weights can be stored."""
        return columns % self.multiple == 0

    def row_bytes(self, columns: int) -> int:
        """Bytes of one row of `columns` weights."""
        if not self.block:
            return columns * self.bits // 8 + self.block_bytes
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
        supers: f32 [rows, columns / block], for SUPER and GRID types: the scale is `supers * scales`, scales are small
            integers, or multiples of 1/4 or 1/8.
        super_minima: shaped like supers: the minimum is `super_minima * minima`; negative in ggml's types.
    """

    codes: U8
    scales: F32
    minima: F32 | None = None
    supers: F32 | None = None
    super_minima: F32 | None = None


Values = Any
"""F32 [rows, columns] for float encodings, `Quantized` for all others."""
Fused = Callable[["U16"], tuple["U8", ...]]
"""See `Codec.fused`."""
Errors = Callable[["U16", "U8"], tuple[float, float]]
"""See `Codec.errors`."""


@dataclass(frozen=True, slots=True)
class Codec:
    """Functions of one encoding, all over whole rows.

    Attributes:
        read: u8 [rows, row bytes] -> Values; None for types without a layout of their own.
        nearest: f32 [rows, columns] -> Values, by ggml's rule, or mlx's for affine types; None for types only read.
        pack: Values -> u8 [rows, row bytes]; None for types only read, or without a layout of their own.
        weighted: (f32 [rows, columns], importance of every column f32 [columns]) -> Values, by ggml's rule with an
            importance matrix; None for types whose errors `methods.importance` weighs with a search of its own.
        divided: as `nearest`, with scales that are whole numbers of their type only when multiplied by the divisor.
        cached: as `nearest`, by ggml's rule for numbers that are quantized while a model runs; None for the same rule.
        fused: finite weights as BF16 bits, u16 [rows, columns] -> the arrays that containers with the type's own layout
            store, u8 [rows, bytes] each, as `nearest` chooses the codes; None where no loop does it all at once.
        errors: such bits, and bytes of the type's layout, u8 [rows, row bytes] -> sum of the squared differences of
            what both stand for, and sum of the squares of the first; f64. None where no loop does it all at once.
    """

    read: Callable[[U8], Values] | None = None
    nearest: Callable[[F32], Values] | None = None
    pack: Callable[[Values], U8] | None = None
    weighted: Callable[[F32, F32], Values] | None = None
    divided: Callable[[F32], Values] | None = None
    cached: Callable[[F32], Values] | None = None
    fused: Fused | None = None
    errors: Errors | None = None


_WHOLE = 32
"""Rows that are one block are a multiple of it: their codes fill words, and loops run over so many at a time."""
_SHARED_KINDS = frozenset((Kind.LINEAR, Kind.MINIMA, Kind.CODEBOOK, Kind.MINIFLOAT))
"""Kinds whose types are equal if bits, block, zero and codebook are."""
_TWO_LEVELS = frozenset((Kind.SUPER, Kind.GRID))
"""Kinds whose scales have a scale."""
