"""Choose types for a goal: the plan with the least predicted loss that meets it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Set
from dataclasses import dataclass, replace

from gemmaq.budget import goal as goals
from gemmaq.budget.goal import Fit, Goal
from gemmaq.budget.options import Losses, candidates, free, groups
from gemmaq.checkpoint import Checkpoint
from gemmaq.convert.layout import make_plans
from gemmaq.encodings import ENCODINGS, Encoding
from gemmaq.errors import UsageError
from gemmaq.methods.lattice import GridFit
from gemmaq.models.roles import Role
from gemmaq.planning import allocation
from gemmaq.planning.allocation import Group
from gemmaq.planning.plan import Plan
from gemmaq.planning.recipe import Recipe
from gemmaq.planning.request import Request
from gemmaq.planning.sensitivities import Sensitivities, unmeasured

_START = ENCODINGS["q8_0"]
"""Type of the body before any is chosen: every container holds it."""
_ROUNDS = 12


@dataclass(frozen=True, slots=True)
class Source:
    """What types are chosen for.

    Attributes:
        checkpoint: the source.
        request: container, method, and types that the user has chosen; one container.
        goal: what the types are to meet.
        sensitivities: how much each group of tensors counts.
        fits: canonical name -> the grid that the weights lie on.
    """

    checkpoint: Checkpoint
    request: Request
    goal: Goal
    sensitivities: Sensitivities
    fits: Mapping[str, GridFit]

    @property
    def losses(self) -> Losses:
        """Predicted losses by the method of the recipe."""
        return Losses(self.sensitivities, self.request.recipe.method)

    @property
    def asked(self) -> Request:
        """The request with the names that the regular expressions of its recipe stand for."""
        return replace(self.request, recipe=self.request.recipe.resolved(self.checkpoint))

    def plan(self, recipe: Recipe) -> Plan:
        """The plan of a recipe."""
        (plan,) = make_plans(self.checkpoint, replace(self.request, recipe=recipe), self.fits)
        return plan

    def room(self, plan: Plan) -> int:
        """Bytes that a plan leaves; negative if it takes too many."""
        return goals.room(self.goal, self.checkpoint, plan)


@dataclass(frozen=True, slots=True)
class Choice:
    """Types that meet a goal.

    Attributes:
        plan: the plan.
        room: bytes that it leaves.
        predicted: predicted mean KL divergence from the source, in nats; None if it is not known.
    """

    plan: Plan
    room: int
    predicted: float | None


@dataclass(frozen=True, slots=True)
class Space:
    """All that types are chosen from, whatever the goal: made once for several goals.

    Attributes:
        recipe: the recipe before any type is chosen.
        plan: its plan.
        groups: the groups of tensors to choose types for.
        tables: role of a table -> the plan with such tables in BF16.
    """

    recipe: Recipe
    plan: Plan
    groups: tuple[Group, ...]
    tables: Mapping[Role, Plan]


def space(source: Source) -> Space:
    """What types are chosen from; the goal of the source is not looked at.

    Raises:
        UsageError: no type is free.
        InputError: the container cannot hold what the recipe asks for.
    """
    asked = source.asked
    recipe = replace(asked.recipe, body=_START, mixture=None, keep=False, like={})
    plan = source.plan(recipe)
    names = frozenset(name for group in source.sensitivities.groups for name in group.names)
    found = groups(source.checkpoint, asked, free(plan, asked, names), losses=source.losses)
    if not found:
        raise UsageError(
            "no tensor is free to have another type", "leave out --tensor-type, or the size that types are chosen for"
        )
    roles = sorted({tensor.source.place.role for tensor in plan.tensors if tensor.source.place.role.is_table})
    tables = {}
    for role in roles:
        like = {t.source.name: ENCODINGS["bf16"] for t in plan.tensors if t.source.place.role is role}
        tables[role] = source.plan(replace(recipe, like=like))
    return Space(recipe, plan, tuple(found), tables)


def choose(source: Source, among: Space | None = None) -> Choice:
    """The types with the least predicted loss that meet a goal.

    Args:
        source: what types are chosen for.
        among: `space` of the source, if it is known already.

    Raises:
        UsageError: not even the smallest types meet it.
        InputError: the container cannot hold what the recipe asks for.
    """
    among = among or space(source)
    plan, unpaid = among.plan, _unpaid(source, among)
    to_choose = [group for group in among.groups if not _roles(source, group) <= unpaid]
    names = {name for group in to_choose for name in group.names}
    smallest = sum(group.least for group in to_choose)
    budget, best, tried = _taken(plan, names) + source.room(plan), None, set[int]()
    for _ in range(_ROUNDS):
        if budget in tried:
            break
        tried.add(budget)
        types = allocation.choose(to_choose, budget)
        if types is None:
            break
        plan = _named(source, among.recipe, types)
        left = source.room(plan)
        if left >= 0 and (best is None or left < best.room):
            best = Choice(plan, left, source.losses.predicted(plan))
        budget = min(_taken(plan, names) + left, budget - 1 if left < 0 else 1 << 62)
    if best is None:
        raise _too_small(source, smallest - budget)
    return best


def check(checkpoint: Checkpoint, request: Request, goal: Goal, fits: Mapping[str, GridFit]) -> None:
    """Refuse a goal that no types meet, before sensitivities are measured; arguments and errors as of `choose`."""
    types = [encoding.name for encoding in candidates(request.to[0]) if not encoding.is_float]
    choose(Source(checkpoint, request, goal, unmeasured(checkpoint, types), fits))


def _roles(source: Source, group: Group) -> set[Role]:
    return {source.checkpoint.tensors[name].place.role for name in group.names}


def _taken(plan: Plan, names: Set[str]) -> int:
    """Bytes of some tensors of a plan."""
    return sum(tensor.nbytes for tensor in plan.tensors if tensor.source.name in names)


def _named(source: Source, recipe: Recipe, types: Mapping[str, str]) -> Plan:
    """The plan with types by name, called by its bits per weight."""
    like = {name: ENCODINGS[kind] for name, kind in types.items()}
    sizes: Counter[Encoding] = Counter()
    for name, encoding in like.items():
        tensor = source.checkpoint.tensors[name]
        if tensor.place.role.is_layer_matrix:
            sizes[encoding] += tensor.rows * encoding.row_bytes(tensor.columns)
    body = sizes.most_common(1)[0][0] if sizes else recipe.body
    plan = source.plan(replace(recipe, body=body, like=like))
    name = f"{plan.bits_per_weight:.2f}bpw"
    request = replace(plan.request, recipe=replace(plan.recipe, name=name))
    return replace(plan, request=request)


def _unpaid(source: Source, among: Space) -> frozenset[Role]:
    """Roles of tables that take no room on the card, since the engine keeps them in main memory.

    They get the container's own type: more bits for them would cost no room, and yet memory.
    """
    if not isinstance(source.goal, Fit):
        return frozenset()
    room = source.room(among.plan)
    return frozenset(
        role
        for role, larger in among.tables.items()
        if larger.tensor_bytes > among.plan.tensor_bytes and source.room(larger) == room
    )


def _too_small(source: Source, missing: int) -> UsageError:
    """What to say if no types meet the goal."""
    name, container = source.checkpoint.name, source.request.to[0]
    hint = "allow more bytes"
    if isinstance(source.goal, Fit):
        hint = "take a shorter --context, a smaller --kv-type, another card, or a smaller model"
    elif source.request.recipe.method != "importance" and container == "gguf":
        hint += ", or take --method importance, which has smaller types"
    goal = goals.described(source.goal)
    return UsageError(
        f"{goal} cannot be met: even in the smallest types {name} takes {missing:,} bytes more in {container}", hint
    )
