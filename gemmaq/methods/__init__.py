"""Methods: which code each weight gets. One file and one entry in METHODS each.

A method takes rows of f32 weights, an encoding and a `Choice`, and returns codes and scales. GPTQ needs whole matrices
and the Hessian of their inputs, so its loops are in `calibration/`, which runs them ahead of writing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from importlib import import_module
from typing import TYPE_CHECKING

from gemmaq.encodings import ENCODINGS, Encoding, Kind
from gemmaq.errors import unknown

if TYPE_CHECKING:
    from gemmaq.encodings import F32, Values

AUTO = "auto"
"""Lattice for tensors that lie wholly or partly on a grid, nearest for others: settled when the plan is made."""


class Needs(Enum):
    """What a method has to know besides the weights."""

    NOTHING = "nothing"
    IMPORTANCE = "the mean squared input of every column"
    HESSIAN = "the Hessian of the inputs"


@dataclass(frozen=True, slots=True)
class Method:
    """One way to choose codes.

    Attributes:
        name: the name users type.
        title: one line for help.
        writes: whether it chooses codes of an encoding.
        needs: what it has to know besides the weights.
        module: module with its `quantize(rows, encoding, choice)`; None if `calibration` runs it on whole matrices.
        fallback: method for tensors in encodings that it does not write, None to refuse them.
        portable_when_shared: whether scales become portable as soon as any of the containers has BF16 scales; without
            it only --portable changes them.
        keeps_grid: whether its scales are those of the grid that the weights lie on, so that it matters if a container
            has to round them.
    """

    name: str
    title: str
    writes: Callable[[Encoding], bool]
    needs: Needs = Needs.NOTHING
    module: str | None = None
    fallback: str | None = None
    portable_when_shared: bool = True
    keeps_grid: bool = False

    @property
    def is_calibrated(self) -> bool:
        """Whether it needs calibration text or an importance matrix."""
        return self.needs is not Needs.NOTHING

    @property
    def encodings(self) -> tuple[str, ...]:
        """Names of the encodings that it writes."""
        return tuple(name for name, encoding in ENCODINGS.items() if self.writes(encoding))


METHODS: dict[str, Method] = {
    m.name: m
    for m in (
        Method(
            "nearest",
            "round to the nearest value, as llama-quantize and mlx do",
            lambda encoding: encoding.kind is not Kind.OPAQUE and encoding.plain,
            module="gemmaq.methods.nearest",
        ),
        Method(
            "lattice",
            "recover the grid of a QAT checkpoint",
            lambda encoding: (encoding.kind, encoding.bits, encoding.block) == (Kind.LINEAR, 4, 32),
            module="gemmaq.methods.lattice",
            fallback="nearest",
            portable_when_shared=False,
            keeps_grid=True,
        ),
        Method(
            "importance",
            "weigh errors with an importance matrix, as llama-quantize does",
            lambda encoding: encoding.weighs_errors,
            needs=Needs.IMPORTANCE,
            module="gemmaq.methods.importance",
        ),
        Method(
            "gptq",
            "let later columns make good the rounding errors of earlier ones",
            lambda encoding: encoding.has_free_scales or (encoding.kind is Kind.SUPER and encoding.weighted),
            needs=Needs.HESSIAN,
        ),
    )
}
"""Method name -> entry, in the order that help and messages list them."""


@dataclass(frozen=True, slots=True, eq=False)
class Importance:
    """How much the errors of each column's weights count; equal only to itself, so that it can be hashed.

    Attributes:
        columns: mean squared input of every column, f32 [columns]; f32 [matrices, columns] for a stack of matrices.
    """

    columns: F32


@dataclass(frozen=True, slots=True)
class Choice:
    """How the codes of a tensor are chosen.

    Attributes:
        method: name of the method.
        portable: choose scales that BF16 and FP16 both hold exactly, so that all containers hold the same model.
        importance: the column importances that method importance weighs errors with.
    """

    method: str
    portable: bool = False
    importance: Importance | None = None

    def of_matrix(self, index: int) -> Choice:
        """The choice for one matrix of a stack, or for the only one."""
        if self.importance is None or self.importance.columns.ndim == 1:
            return self
        return replace(self, importance=Importance(self.importance.columns[index]))


Quantize = Callable[["F32", Encoding, Choice], "Values"]


def check(name: str) -> str:
    """The method's name in lower case, `auto` included.

    Raises:
        UsageError: there is no such method.
    """
    known = (AUTO, *METHODS)
    if name.lower() not in known:
        raise unknown("method", name, known, meant={"imatrix": "importance", "rtn": "nearest", "round": "nearest"})
    return name.lower()


def calibrated() -> tuple[str, ...]:
    """Names of the methods that need calibration text or an importance matrix."""
    return tuple(name for name, method in METHODS.items() if method.is_calibrated)


def quantize(x: F32, encoding: Encoding, choice: Choice) -> Values:
    """Codes and scales of rows, f32 [rows, columns], by the chosen method."""
    module = METHODS[choice.method].module
    assert module is not None, f"method {choice.method} takes whole matrices"
    run: Quantize = import_module(module).quantize
    return run(x, encoding, choice)
