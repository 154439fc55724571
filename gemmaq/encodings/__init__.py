"""Which numbers can be represented: the weight encodings, as data.

An encoding turns rows of f32 weights into codes and scales, these into bytes, and back. The registry below is
plain data and cheap to import; the compiled loops are loaded by `codec` when they are first needed.

Source of the block layouts: ggml's block structs (ggml-common.h).
"""

from __future__ import annotations

from collections.abc import Callable
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
    """One way to store weights.

    Attributes:
        name: the name users type, lower case (`q4_0`).
        ggml_type: number of the type in GGUF tensor infos.
        block: weights a block; a row must be a multiple of it.
        block_bytes: bytes a block takes.
        module: module of this package whose CODECS holds the loops.
        writable: whether gemmaq can produce it (otherwise it can only read it).
    """

    name: str
    ggml_type: int
    block: int
    block_bytes: int
    module: str
    writable: bool = True

    @property
    def label(self) -> str:
        """The name as file names and tables show it (`Q4_0`)."""
        return self.name.upper()

    @property
    def is_float(self) -> bool:
        """Whether weights are stored one by one as floating point numbers."""
        return self.block == 1

    @property
    def bits_per_weight(self) -> float:
        """Bits a weight takes, scales included."""
        return 8 * self.block_bytes / self.block

    def fits(self, columns: int) -> bool:
        """Whether a row of `columns` weights can be stored."""
        return columns % self.block == 0

    def row_bytes(self, columns: int) -> int:
        """Bytes of one row of `columns` weights."""
        return columns // self.block * self.block_bytes


@dataclass(frozen=True, slots=True)
class Quantized:
    """Codes and scales of some rows: what every container packs.

    A weight is `scale * (code - offset)`, or `scale * code + minimum` where the encoding has minima.

    Attributes:
        codes: u8 [rows, columns].
        scales: f32 [rows, columns / group].
        minima: f32, shaped like scales, or None.
        supers: f32 [rows, columns / block]; where given, the scale is `supers * scales` and scales are integers.
    """

    codes: U8
    scales: F32
    minima: F32 | None = None
    supers: F32 | None = None


Values = Any
"""F32 [rows, columns] for float encodings, `Quantized` for all others."""


@dataclass(frozen=True, slots=True)
class Codec:
    """The loops of one encoding, all over whole rows.

    Attributes:
        unpack: u8 [rows, row bytes] -> f32 [rows, columns].
        nearest: f32 [rows, columns] -> Values; the rule of ggml's own quantizer. None if not writable.
        pack: Values -> u8 [rows, row bytes]. None if not writable.
    """

    unpack: Callable[[U8], F32]
    nearest: Callable[[F32], Values] | None = None
    pack: Callable[[Values], U8] | None = None


ENCODINGS: dict[str, Encoding] = {
    e.name: e
    for e in (
        Encoding("f32", 0, 1, 4, "floats"),
        Encoding("f16", 1, 1, 2, "floats"),
        Encoding("bf16", 30, 1, 2, "floats"),
        Encoding("q8_0", 8, 32, 34, "legacy"),
        Encoding("q4_0", 2, 32, 18, "legacy"),
        Encoding("q4_1", 3, 32, 20, "legacy"),
        Encoding("q5_0", 6, 32, 22, "legacy"),
        Encoding("q5_1", 7, 32, 24, "legacy"),
        Encoding("q6_k", 14, 256, 210, "kquants"),
        Encoding("q4_k", 12, 256, 144, "kquants", writable=False),
        Encoding("q5_k", 13, 256, 176, "kquants", writable=False),
    )
}

BY_GGML_TYPE: dict[int, Encoding] = {e.ggml_type: e for e in ENCODINGS.values()}

WRITABLE: tuple[str, ...] = tuple(e.name for e in ENCODINGS.values() if e.writable)


def find(name: str) -> Encoding:
    """The writable encoding of that name, in any case.

    Raises:
        UsageError: there is none.
    """
    encoding = ENCODINGS.get(name.lower())
    if encoding is None or not encoding.writable:
        raise UsageError(f"unknown type {name!r}", f"known types: {', '.join(WRITABLE)}")
    return encoding


def codec(encoding: Encoding) -> Codec:
    """The loops of an encoding (imports the compiler on first use)."""
    codecs: dict[str, Codec] = import_module(f"{__name__}.{encoding.module}").CODECS
    return codecs[encoding.name]
