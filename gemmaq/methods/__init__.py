"""Which code each weight gets: one file per method.

A method takes f32 rows, an encoding and a choice, and returns what the encoding packs. `gptq` alone takes a whole
matrix and what is known of its inputs: `calibrate` runs it, ahead of writing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from gemmaq.errors import UsageError

if TYPE_CHECKING:
    from gemmaq.encodings import F32, Encoding, Values

NAMES = ("auto", "nearest", "lattice", "importance", "gptq")
"""What users may ask for; `auto` is settled, tensor by tensor, when the plan is made."""

_SMALL_BLOCKS = ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "affine4", "affine4-g64", "affine8", "affine8-g64")
CALIBRATED = {"importance": _SMALL_BLOCKS, "gptq": _SMALL_BLOCKS}
"""Method that needs to know the inputs of a matrix -> names of the encodings it can write."""


@dataclass(frozen=True, slots=True, eq=False)
class Importance:
    """How much the error of each column's weights counts; equal only to itself, so that it can be hashed.

    Attributes:
        columns: mean squared input of every column, f32 [columns].
    """

    columns: F32


@dataclass(frozen=True, slots=True)
class Choice:
    """How the codes of a tensor are chosen.

    Attributes:
        method: name of the method.
        portable: choose scales that BF16 and FP16 both hold exactly, so that all containers hold the same model.
        importance: what method importance weighs errors by.
    """

    method: str
    portable: bool = False
    importance: Importance | None = None


Method = Callable[["F32", "Encoding", Choice], "Values"]


def check(name: str) -> str:
    """The name in lower case.

    Raises:
        UsageError: there is no such method.
    """
    if name.lower() not in NAMES:
        raise UsageError(f"unknown method {name!r}", f"known methods: {', '.join(NAMES)}")
    return name.lower()


def quantize(x: F32, encoding: Encoding, choice: Choice) -> Values:
    """Codes and scales of rows, f32 [rows, columns], by the method chosen."""
    method: Method = import_module(f"{__name__}.{choice.method}").quantize
    return method(x, encoding, choice)
