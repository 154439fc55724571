"""The best single type, or mixture with a name, that meets a goal: what chosen types are compared with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from gemmaq import containers
from gemmaq.budget.choose import Choice, Source
from gemmaq.budget.options import possible
from gemmaq.encodings import ENCODINGS, Encoding
from gemmaq.errors import InputError, UsageError
from gemmaq.models.roles import Role
from gemmaq.planning.format import pieces_of
from gemmaq.planning.plan import Plan, PlannedTensor
from gemmaq.planning.recipe import TYPES, Recipe, of
from gemmaq.planning.request import Request

_TABLES = (
    "bf16", "q8_0", "q6_k", "q5_k", "q5_0", "q4_k", "iq4_nl", "q4_0", "affine8", "affine6", "affine5", "affine4",
)  # fmt: skip
"""Types of the tables to try, besides the container's own choice and the type of the body."""
_SLACK = 1 << 16
"""Bytes by which models may differ in what is not their tensors."""


@dataclass(frozen=True, slots=True)
class _Try:
    """A recipe with its predicted loss and its bytes, before it is planned."""

    predicted: float
    size: int
    recipe: Recipe


def best(source: Source, like: Choice) -> Choice | None:
    """The uniform type that meets a goal with the least predicted loss; None if none does.

    Args:
        source: what the types are for.
        like: types that meet the goal, whose bytes tell which uniform types can.
    """
    on_host = sum(t.nbytes for t in like.plan.tensors if t.source.place.role is Role.LAYER_EMBEDDING)
    most = like.plan.tensor_bytes + like.room + _SLACK
    for each in sorted(_tries(source), key=lambda each: (each.predicted, -each.size)):
        if each.size > most + on_host:
            continue
        plan = source.plan(each.recipe)
        left = source.room(plan)
        if left >= 0:
            return Choice(plan, left, source.losses.predicted(plan))
    return None


def _tries(source: Source) -> Iterator[_Try]:
    """Every uniform type with every type of the tables, as far as they can be planned."""
    request = source.asked
    asked = request.recipe
    for name in TYPES:
        if not _held(source, name):
            continue
        recipe = of(name, method=asked.method)
        recipe = replace(asked, body=recipe.body, mixture=recipe.mixture, keep=False, like={}, name=None)
        try:
            plan = source.plan(recipe)
        except (InputError, UsageError):
            continue  # not with this method, or not in rows of this length
        yield from _with_tables(source, request, recipe, plan)


def _held(source: Source, name: str) -> bool:
    """Whether the container holds a type, which is one that a user may want: no 32 bits."""
    body = of(name).body
    return body.name not in ("f32", "f16") and containers.writer(source.request.to[0]).FORMAT.holds(body)


def _with_tables(source: Source, request: Request, recipe: Recipe, plan: Plan) -> Iterator[_Try]:
    """A recipe as it is, and with other types of the tables if those are free."""
    predicted = source.losses.predicted(plan)
    if predicted is not None:
        yield _Try(predicted, plan.tensor_bytes, recipe)
    tables = [
        tensor
        for tensor in plan.tensors
        if tensor.source.place.role.is_table and request.recipe.asked(tensor.source) is None
    ]
    target = containers.writer(source.request.to[0]).FORMAT
    for encoding in dict.fromkeys((recipe.body, *(ENCODINGS[name] for name in _TABLES))):
        if not tables or not all(possible(request, tensor, encoding) for tensor in tables):
            continue
        others: dict[str, PlannedTensor] = {}
        for tensor in tables:
            pieces = pieces_of(target, encoding, tensor.source.columns, source.request.scales)
            others[tensor.source.name] = replace(tensor, encoding=encoding, pieces=pieces)
        changed = replace(plan, tensors=tuple(others.get(t.source.name, t) for t in plan.tensors))
        predicted = source.losses.predicted(changed)
        if predicted is not None:
            yield _Try(predicted, changed.tensor_bytes, _named(recipe, others, encoding))


def _named(recipe: Recipe, tables: Mapping[str, PlannedTensor], encoding: Encoding) -> Recipe:
    """A recipe that gives tables a type."""
    roles = {tensor.source.place.role for tensor in tables.values()}
    if Role.EMBEDDING in roles or Role.HEAD in roles:
        recipe = replace(recipe, embedding=encoding)
    return replace(recipe, layer_embedding=encoding) if Role.LAYER_EMBEDDING in roles else recipe
