"""Stacks of matrices, put together from the tensors that other layouts store for them; tables with rows of zeros."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from gemmaq.checkpoint import GAPS, Part, Tensor
from gemmaq.errors import InputError
from gemmaq.files.runs import Run
from gemmaq.models.config import TextConfig
from gemmaq.models.family import Family
from gemmaq.models.slices import Slice


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
            raise InputError(*GAPS, path=tensor.span, tensor=tensor.name)
        if not same or tensor.shape != piece.shape:
            raise InputError(
                f"is {tensor.encoding.label} {list(tensor.shape)}, but {first.name} is {first.encoding.label} "
                f"{list(first.shape)}: matrices of one stack must be stored alike",
                path=tensor.span,
                tensor=tensor.name,
            )
    parts = tuple(_scattered(slices, number) for number in range(len(first.parts)))
    return replace(first, name=stack.name, shape=stack.shape, parts=parts)


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
