"""Outcome of every tensor: copied exactly, with rounded scales, quantized, or quantized again."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gemmaq.encodings import Quantized
from gemmaq.methods import METHODS
from gemmaq.planning.plan import Plan, PlannedTensor

if TYPE_CHECKING:
    from gemmaq.encodings import F32, Values


@dataclass(frozen=True, slots=True)
class Outcome:
    """Outcome of one tensor.

    Attributes:
        name: name in the container.
        encoding: name of its encoding.
        how: `exact` (the source's weights unchanged), `rounded` (its codes with some scales rounded), `lattice`,
            `quantized`, `requantized` (from another quantized type), `tuned` (a norm) or `float`.
        scales: number of scales that were counted.
        rounded: number of scales that the container could not hold exactly.
    """

    name: str
    encoding: str
    how: str
    scales: int
    rounded: int

    @property
    def is_chosen(self) -> bool:
        """Whether a method chose the codes."""
        return self.how not in ("exact", "rounded", "tuned", "float")


class OutcomeCounter:
    """Counts the scales that containers had to round, tensor by tensor, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[tuple[Hashable, str], tuple[int, int]] = {}

    def count(self, key: Hashable, planned: PlannedTensor, values: Values) -> None:
        """Count the scales of some rows of a tensor; `key` is that of its plan (`Plan.key`)."""
        if not isinstance(values, Quantized) or not (METHODS[planned.choice.method].keeps_grid or planned.keeps_codes):
            return
        stored = (values.scales, values.minima) if values.supers is None else (values.supers, values.super_minima)
        kinds = [numbers for numbers in stored if numbers is not None]
        rounded = sum(int(np.count_nonzero(_held(planned, numbers) != numbers)) for numbers in kinds)
        with self._lock:
            scales, before = self._counts.get((key, planned.name), (0, 0))
            total = scales + sum(numbers.size for numbers in kinds)
            self._counts[key, planned.name] = (total, before + rounded)

    def outcome(self, key: Hashable, planned: PlannedTensor) -> Outcome:
        """The outcome of a tensor of the plan with this key, which has been carried out."""
        scales, rounded = self._counts.get((key, planned.name), (0, 0))
        return Outcome(planned.name, planned.encoding.name, _how(planned, rounded), scales, rounded)

    def outcomes(self, plan: Plan) -> list[Outcome]:
        """Outcomes of the text tensors of a plan that has been carried out."""
        return [self.outcome(plan.key, planned) for planned in plan.tensors]


def _held(planned: PlannedTensor, numbers: F32) -> F32:
    """Scales as the container stores them: FP16 within ggml's blocks, else in the dtype of their array."""
    from gemmaq.encodings.rounding import as_bf16, as_f16

    if planned.encoding.has_byte_scales:
        return numbers
    dtype = "F16" if len(planned.pieces) == 1 else planned.pieces[1].dtype
    return as_f16(numbers) if dtype == "F16" else as_bf16(numbers)


def _how(planned: PlannedTensor, rounded: int) -> str:
    if planned.tuned:
        return "tuned"
    if planned.keeps_codes and planned.solved is None:
        return "rounded" if rounded else "exact"
    if planned.encoding.is_float:
        return "float"
    if METHODS[planned.choice.method].keeps_grid:
        return planned.choice.method
    return "quantized" if planned.source.encoding.is_float else "requantized"
