"""From tensors found in files to the tensors of a text model, checked against the config."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from gemmaq.checkpoint import Tensor
from gemmaq.checkpoint.rows import weights
from gemmaq.errors import InputError
from gemmaq.files.span import Reader
from gemmaq.models.config import TextConfig
from gemmaq.models.family import Family

_SLAB = 1 << 22


def text_tensors(
    found: Iterable[Tensor], family: Family, config: TextConfig, *, origin: str
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors of a text model in file order, and notes on what was left out.

    A head that equals the embedding is dropped, one that differs is kept. Rows of the embedding beyond the
    vocabulary are cut.

    Args:
        found: tensors under their canonical names.
        family: The model's family, which gives every tensor its place.
        config: The model's dimensions.
        origin: what to call the source in an error.

    Raises:
        InputError: a tensor is missing, given twice, or of the wrong shape.
    """
    names = family.names
    given: dict[str, Tensor] = {}
    for tensor in found:
        if tensor.name in given:
            raise InputError(f"{origin} has two tensors for {tensor.name}")
        given[tensor.name] = replace(tensor, place=names.place(tensor.name))
    notes: list[str] = []
    result: dict[str, Tensor] = {}
    wanted = dict(names.shapes(config))
    missing = [name for name in wanted if name not in given]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(
            f"{origin} lacks tensor {missing[0]}{more}", "is this a whole model, with all shards and no adapter?"
        )
    for name, shape in wanted.items():
        result[name] = _fitted(given.pop(name), shape, origin)
    head = given.pop(names.HEAD, None)
    if head is not None:
        head = _fitted(head, wanted[names.EMBEDDING], origin)
        if _same(head, result[names.EMBEDDING]):
            notes.append("lm_head.weight repeats the embedding and is dropped")
        else:
            notes.append("lm_head.weight differs from the embedding and is kept")
            result[names.HEAD] = head
    if given:
        notes.append(f"left out, no part of a {family.title} text model: {_some(given)}")
    return result, tuple(notes)


def _some(tensors: Mapping[str, Tensor]) -> str:
    first = next(iter(tensors))
    return first if len(tensors) == 1 else f"{first} and {len(tensors) - 1} more tensors"


def _fitted(tensor: Tensor, shape: tuple[int, ...], origin: str) -> Tensor:
    """The tensor with the wanted shape, surplus rows of a vocabulary cut."""
    surplus = tensor.place.role.is_table and tensor.shape[1:] == shape[1:]
    if surplus and tensor.shape[0] > shape[0]:
        return replace(tensor, shape=shape)
    if tensor.shape != shape:
        raise InputError(
            f"{origin}: tensor {tensor.name} has shape {list(tensor.shape)}, the config asks for {list(shape)}"
        )
    return tensor


def _same(a: Tensor, b: Tensor) -> bool:
    """Whether two matrices hold the same weights, compared a slab at a time."""
    if a.parts == b.parts:
        return True
    step = max(1, _SLAB // a.columns)
    with Reader() as reader:
        for row in range(0, a.rows, step):
            count = min(step, a.rows - row)
            if not np.array_equal(weights(a, row, count, reader), weights(b, row, count, reader)):
                return False
    return True
