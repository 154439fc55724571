"""Stacks of matrices, put together from the tensors that other layouts store for them; tables with rows of zeros."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from gemmaq.checkpoint import GAPS, Part, Tensor
from gemmaq.checkpoint.rows import read_rows, values_of
from gemmaq.encodings import Quantized
from gemmaq.errors import InputError
from gemmaq.files.runs import Run, within
from gemmaq.files.span import Reader
from gemmaq.models.config import TextConfig
from gemmaq.models.family import Family
from gemmaq.models.slices import Slice

if TYPE_CHECKING:
    from gemmaq.encodings import Values


@dataclass(frozen=True, slots=True)
class Stack:
    """A stack that is stored in slices: its canonical name and shape, and the slices."""

    name: str
    shape: tuple[int, ...]
    slices: tuple[Slice, ...]


def sliced(family: Family, config: TextConfig, present: Mapping[str, object]) -> list[Stack]:
    """The stacks of a model of which a folder has slices.

    Args:
        family: The model's family.
        config: The model's dimensions.
        present: Canonical names of the tensors in the folder, slices under names of their own.
    """
    found = []
    for name, shape in family.names.shapes(config):
        for per_expert in (False, True):
            slices = family.names.slices(name, shape, per_expert=per_expert)
            if slices and slices[0].name in present:
                found.append(Stack(name, shape, slices))
                break
    return found


def joined(stack: Stack, tensors: Mapping[str, Tensor]) -> Tensor:
    """One tensor whose rows lie in several.

    Args:
        stack: Name, shape and slices of the tensor.
        tensors: The slices by name, and other tensors.

    Raises:
        InputError: A slice is missing, or stored otherwise than the others.
    """
    missing = [piece.name for piece in stack.slices if piece.name not in tensors]
    if missing:
        raise InputError(f"lacks tensor {missing[0]} of the stack {stack.name}")
    slices = [(piece, tensors[piece.name]) for piece in stack.slices]
    first = slices[0][1]
    for piece, tensor in slices:
        same = (tensor.encoding, tensor.layout, len(tensor.parts)) == (first.encoding, first.layout, len(first.parts))
        if any(part.is_strided for part in tensor.parts):
            raise InputError(*GAPS, path=tensor.span, tensor=tensor.spelled)
        if not same or tensor.shape != piece.shape:
            raise InputError(
                f"is {tensor.encoding.label} {list(tensor.shape)}, but {first.name} is {first.encoding.label} "
                f"{list(first.shape)}: matrices of one stack must be stored alike",
                path=tensor.span,
                tensor=tensor.spelled,
            )
    if first.decoder is not None:
        runs = []
        for number, (piece, _) in enumerate(slices):
            row = 0
            for start, count in piece.runs:
                runs.append((Run(start, count, row), number))
                row += count
        return replace(_decoded([tensor for _, tensor in slices], runs), name=stack.name, shape=stack.shape)
    parts = tuple(_scattered(slices, number) for number in range(len(first.parts)))
    return replace(first, name=stack.name, stored_name="", shape=stack.shape, parts=parts)


def _scattered(slices: list[tuple[Slice, Tensor]], number: int) -> Part:
    """One array of all slices, in the order of the whole tensor's rows."""
    runs = []
    for piece, tensor in slices:
        part, row = tensor.parts[number], 0
        for first, count in piece.runs:
            runs.append(Run(first, count, part.offset + row * part.row_bytes, part.span))
            row += count
    runs.sort(key=lambda run: run.first)
    part, span = slices[0][1].parts[number], runs[0].span
    assert span is not None
    return replace(part, span=span, offset=runs[0].offset, scattered=tuple(runs))


def padded(tensor: Tensor, rows: int) -> Tensor:
    """A tensor with so many rows, zeros behind its own; the tensor itself if it has them already."""
    missing = rows - tensor.rows
    if missing <= 0:
        return tensor
    if tensor.decoder is not None:
        runs = [(Run(0, tensor.rows, 0), 0), (Run(tensor.rows, missing, 0, zeros=True), 0)]
        return replace(_decoded([tensor], runs), shape=(rows, *tensor.shape[1:]))
    parts = tuple(
        replace(
            part,
            scattered=(
                *(part.scattered or (Run(0, tensor.rows, part.offset, part.span),)),
                Run(tensor.rows, missing, 0, zeros=True),
            ),
        )
        for part in tensor.parts
    )
    return replace(tensor, shape=(rows, *tensor.shape[1:]), parts=parts)


@dataclass(frozen=True, slots=True)
class Pieces:
    """Decoder of a tensor whose rows other decoders read.

    Attributes:
        tensors: The tensors with these decoders, stored alike.
        runs: Rows of the whole, in order; offsets count rows of their tensors.
        numbers: Which tensor each run is of.
    """

    tensors: tuple[Tensor, ...]
    runs: tuple[Run, ...]
    numbers: tuple[int, ...]

    def values(self, reader: Reader, first: int, count: int) -> Values:
        """Rows of the whole; see `checkpoint.Decoder`."""
        parts = []
        for run, skipped, taken in within(self.runs, first, count):
            tensor = self.tensors[self.numbers[self.runs.index(run)]]
            start = 0 if run.zeros else run.offset + skipped
            amount = 1 if run.zeros else taken
            values = values_of(tensor, read_rows(tensor, start, amount, reader, bytearray()))
            parts.append(_zeros(values, taken) if run.zeros else values)
        if not isinstance(parts[0], Quantized):
            return np.concatenate(parts)
        minima = None if parts[0].minima is None else np.concatenate([part.minima for part in parts])
        codes, scales = (np.concatenate([getattr(part, name) for part in parts]) for name in ("codes", "scales"))
        return Quantized(codes, scales, minima)


def _zeros(values: Values, count: int) -> Values:
    """So many rows of zeros, in the form that a row has."""
    if not isinstance(values, Quantized):
        return np.zeros((count, values.shape[1]), np.float32)
    empty = [
        None if array is None else np.zeros((count, array.shape[1]), array.dtype)
        for array in (values.codes, values.scales, values.minima)
    ]
    codes, scales, minima = empty
    assert codes is not None and scales is not None
    return Quantized(codes, scales, minima)


def _decoded(tensors: list[Tensor], runs: list[tuple[Run, int]]) -> Tensor:
    """A tensor whose rows are runs of others, each with the number of its tensor; the first's name and shape."""
    ordered = sorted(runs, key=lambda item: item[0].first)
    decoder = Pieces(tuple(tensors), tuple(run for run, _ in ordered), tuple(number for _, number in ordered))
    rows = max(1, sum(run.count for run, _ in ordered))
    parts = [
        replace(part, row_bytes=part.row_bytes * tensor.rows // rows) for tensor in tensors for part in tensor.parts
    ]
    nbytes = sum(tensor.nbytes for tensor in tensors)
    return replace(tensors[0], parts=tuple(parts), decoder=decoder, stored_bytes=nbytes)
