"""Check the tensors of a text model against its config, and put them in file order."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
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
    tensors: Iterable[Tensor], family: Family, config: TextConfig, *, origin: str
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors of a text model in file order, and notes on tensors that were left out.

    A head that equals the embedding is dropped, another head is kept. Rows of the embedding beyond the vocabulary are
    cut.

    Args:
        tensors: Tensors under their canonical names, in any order.
        family: The model's family, which gives every tensor its place.
        config: The model's dimensions.
        origin: Name of the source in errors.

    Raises:
        InputError: A tensor is missing, present twice, or of the wrong shape.
    """
    names = family.names
    rest: dict[str, Tensor] = {}
    for tensor in tensors:
        if tensor.name in rest:
            raise InputError(f"has two tensors for {tensor.name}", path=origin)
        rest[tensor.name] = replace(tensor, place=names.place(tensor.name))
    notes: list[str] = []
    result: dict[str, Tensor] = {}
    shapes = dict(names.shapes(config))
    missing = [name for name in shapes if name not in rest]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        hint = "is this a whole model, with all shards and no adapter?"
        raise InputError(f"lacks tensor {_as_stored(missing[0], rest, family)}{more}", hint, path=origin)
    for name in names.idle(config):
        rest.pop(name, None)
    passed_over = [name for name in rest if name not in shapes and names.is_surplus(name, config)]
    unused = [rest.pop(name).spelled for name in passed_over]
    if unused:
        notes.append(f"left out, no runtime reads them: {_some(unused)}")
    for name, shape in shapes.items():
        result[name] = _fitted(rest.pop(name), shape, origin)
    head = rest.pop(names.HEAD, None)
    if head is not None:
        head = _fitted(head, shapes[names.EMBEDDING], origin)
        if same(head, result[names.EMBEDDING]):
            notes.append(f"{names.HEAD} repeats the embedding and is dropped")
        else:
            notes.append(f"{names.HEAD} differs from the embedding and is kept")
            result[names.HEAD] = head
    return result, (*notes, *strangers([tensor.spelled for tensor in rest.values()], family))


def _as_stored(name: str, tensors: Mapping[str, Tensor], family: Family) -> str:
    """A canonical name with the prefix that the names of these tensors have in their file, or as GGUF spells it."""
    for other, tensor in tensors.items():
        inner = other.removeprefix("model.")
        prefix = tensor.stored_name.removesuffix(inner)
        if inner != other and prefix + inner == tensor.stored_name and (not prefix or prefix.endswith(".")):
            return prefix + name.removeprefix("model.")
        if tensor.place.layer is not None and tensor.stored_name == family.names.to_gguf(other):
            return family.names.to_gguf(name)
    return name


def strangers(names: Collection[str], family: Family) -> tuple[str, ...]:
    """A note on tensors that no model of a family has, if there are any."""
    return (f"left out, no part of a {family.title} text model: {_some(names)}",) if names else ()


def surplus(names: Collection[str]) -> tuple[str, ...]:
    """A sentence on tensors of towers that the config has no place for, if there are any."""
    return (f"left out, the towers' config has no place for them: {_some(names)}",) if names else ()


def idle_tensors(
    tensors: Iterable[Tensor], used: Mapping[str, Tensor], family: Family, config: TextConfig, *, origin: str
) -> dict[str, Tensor]:
    """The tensors that some runtimes demand and none uses: the source's own, or those that stand in for them.

    Args:
        tensors: Tensors under their canonical names, in any order.
        used: The tensors that `text_tensors` gave.
        family: The model's family.
        config: The model's dimensions.
        origin: Name of the source in errors.

    Raises:
        InputError: A tensor has another shape than the one that would stand in for it.
    """
    present = {tensor.name: tensor for tensor in tensors}
    result = {}
    for name, other in family.names.idle(config).items():
        tensor = _fitted(present.get(name, used[other]), used[other].shape, origin)
        result[name] = replace(tensor, name=name, place=family.names.place(name))
    return result


def _some(names: Collection[str]) -> str:
    """The first name, and how many there are besides."""
    first = next(iter(names))
    return first if len(names) == 1 else f"{first} and {len(names) - 1} more tensors"


def _fitted(tensor: Tensor, shape: tuple[int, ...], origin: str) -> Tensor:
    """The tensor in the config's shape, rows beyond the vocabulary cut."""
    surplus = tensor.place.role.is_table and tensor.shape[1:] == shape[1:]
    if surplus and tensor.shape[0] > shape[0]:
        return replace(tensor, shape=shape)
    if tensor.shape != shape:
        raise InputError(
            f"has shape {list(tensor.shape)}, the config asks for {list(shape)}", path=origin, tensor=tensor.spelled
        )
    return tensor


def same(a: Tensor, b: Tensor) -> bool:
    """Whether two matrices hold the same weights; memory holds a slab of each."""
    if a.parts == b.parts and a.decoder == b.decoder:
        return True
    step = max(1, _SLAB // a.columns)
    with Reader() as reader:
        for row in range(0, a.rows, step):
            count = min(step, a.rows - row)
            if not np.array_equal(weights(a, row, count, reader), weights(b, row, count, reader)):
                return False
    return True
