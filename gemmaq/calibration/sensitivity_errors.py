"""Errors of the outputs of matrices in every type, by every method: losses of types that are not run follow from them.

A few rows of each matrix are quantized as a conversion does it. Codes of method gptq are solved with the inputs of
other text than that which errors are measured on, as solving fits its own text better than any other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gemmaq import methods
from gemmaq.calibration import gptq
from gemmaq.encodings import ENCODINGS, Encoding, Kind, dequantize
from gemmaq.inference.device import Device, aligned
from gemmaq.methods import METHODS, Choice, Importance, Needs

if TYPE_CHECKING:
    import torch

    from gemmaq.encodings import F32, Values

ROWS = 64
"""Rows of a matrix that are quantized; of experts as many in all."""
PROBES = ("q4_0", "iq4_nl", "affine4", "q8_0")
"""Types that a model is run with, in order: the first that leaves an error counts, as QAT weights have none in Q4_0."""
_LEAST = 1e-6
"""Error of a probe, as a share of the outputs, from which on it says something."""

Errors = Mapping[str, Mapping[str, float]]
"""Method -> name of an encoding -> squared errors, summed."""


@dataclass(frozen=True, slots=True)
class Case:
    """Rows of a matrix with its inputs.

    Attributes:
        weights: f32 [rows, columns].
        inputs: what errors are weighed with, f32 [tokens, columns].
        hessian: X^T X of the inputs X that codes are solved for, f32 [columns, columns]; None where none are solved.
        count: number of the inputs X.
    """

    weights: F32
    inputs: torch.Tensor
    hessian: torch.Tensor | None
    count: int = 1

    @property
    def choice(self) -> Choice:
        """How method importance chooses codes."""
        assert self.hessian is not None
        columns = (self.hessian.diagonal() / self.count).cpu().numpy().copy()
        return Choice("importance", importance=Importance(columns))

    def error(self, weights: F32) -> float:
        """Squared error of the outputs with other weights, f32 [rows, columns], summed."""
        difference = _of(self.inputs, self.weights - weights)
        return float((self.inputs @ difference.T).double().square().sum())

    @property
    def signal(self) -> float:
        """Squared outputs, summed."""
        return float((self.inputs @ _of(self.inputs, self.weights).T).double().square().sum())


def _of(like: torch.Tensor, values: F32) -> torch.Tensor:
    """An array on the device of a tensor."""
    import torch

    return aligned(*values.shape).copy_(torch.from_numpy(values)).to(like.device)


def fitting(columns: Iterable[int], types: Sequence[str] | None = None) -> list[Encoding]:
    """The types that fit rows of these lengths: those of a selection, and what probes are run in."""
    known = [e for e in ENCODINGS.values() if e.kind is not Kind.OPAQUE and (types is None or e.name in types)]
    known += [ENCODINGS[name] for name in PROBES if types is not None and name not in types]
    lengths = set(columns)
    return [encoding for encoding in known if all(map(encoding.fits, lengths))]


def errors(
    cases: Sequence[Case], encodings: Sequence[Encoding], settings: gptq.Settings, *, device: Device, once: bool
) -> Errors:
    """Errors of matrices in types, by the methods that write them.

    Args:
        cases: rows of matrices, each with its inputs.
        encodings: the types.
        settings: settings of GPTQ.
        device: to compute on.
        once: solve for blocks of all sizes in one order of columns, with one inverse of the Hessian.

    Raises:
        InputError: a Hessian cannot be inverted.
    """
    found: dict[str, dict[str, float]] = {}
    for case in cases:
        for method, encoding, error in _errors(case, encodings, settings, device=device, once=once):
            of_method = found.setdefault(method, {})
            of_method[encoding] = of_method.get(encoding, 0.0) + error
    return found


def _errors(
    case: Case, encodings: Sequence[Encoding], settings: gptq.Settings, *, device: Device, once: bool
) -> Iterator[tuple[str, str, float]]:
    """Method, type and error of all combinations for one case."""
    weights = case.weights
    choices = [Choice("nearest"), *([case.choice] if case.hessian is not None else [])]
    jobs = [(choice, e) for choice in choices for e in encodings if writes(choice.method, e)]

    def rounded(job: tuple[Choice, Encoding]) -> float:
        choice, encoding = job
        return case.error(dequantize(encoding, methods.quantize(weights, encoding, choice)))

    for (choice, encoding), error in zip(jobs, device.map(rounded, jobs), strict=True):
        yield choice.method, encoding.name, error
    for name, values in _solved(case, encodings, settings, device=device, once=once):
        yield "gptq", name, case.error(dequantize(ENCODINGS[name], values))


def writes(method: str, encoding: Encoding) -> bool:
    """Whether a method chooses codes of a type itself; floats are rounded."""
    return METHODS[method].writes(encoding) and (method == "nearest" or not encoding.is_float)


def _solved(
    case: Case, encodings: Sequence[Encoding], settings: gptq.Settings, *, device: Device, once: bool
) -> Iterator[tuple[str, Values]]:
    """Type and values of all types that GPTQ solves; there is one inverse at a time."""
    if case.hessian is None or METHODS["gptq"].needs is not Needs.HESSIAN:
        return
    columns, of_blocks = case.weights.shape[1], dict[gptq.Blocks, list[Encoding]]()
    for encoding in encodings:
        if writes("gptq", encoding):
            of_blocks.setdefault(_together(columns) if once else gptq.Blocks.of(encoding), []).append(encoding)
    alone = Device(device.torch_device, None)
    for blocks, same in of_blocks.items():
        inverse = gptq.invert(case.hessian, settings, blocks=blocks, device=device)

        def solve(encoding: Encoding, inverse: gptq.InverseHessian = inverse) -> Values:
            return gptq.quantize(case.weights, inverse, encoding, portable=False, device=alone)

        yield from zip((e.name for e in same), device.map(solve, same), strict=True)
        del inverse


def _together(columns: int) -> gptq.Blocks:
    """Blocks whose order suits all types: as many columns as in the largest block of any."""
    return gptq.Blocks(next(size for size in (256, 128, 64, 32, 1) if columns % size == 0))


def probe(cases: Sequence[Case], found: Errors) -> str:
    """The type that a model is run with: the first probe that leaves an error of the outputs."""
    signal = sum(case.signal for case in cases)
    present = [name for name in PROBES if name in found["nearest"]]
    return next((name for name in present if found["nearest"][name] > _LEAST * signal), present[0])


def scaled(loss: float, found: Errors, measured: str) -> dict[str, dict[str, float]]:
    """Losses in all types by all methods, from that in the type that was run; losses grow as errors do."""
    unit = found["nearest"][measured]
    return {
        method: {name: loss * error / unit if unit else 0.0 for name, error in of_method.items()}
        for method, of_method in found.items()
    }


def some_rows(rows: int, count: int = ROWS) -> list[int]:
    """Numbers of some rows of a matrix, spread evenly."""
    return [int(at) for at in np.linspace(0, rows - 1, min(rows, count)).round()]
