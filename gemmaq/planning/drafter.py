"""The plan of a drafter beside its target; a prefix tells the names of its tensors from those of the target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

from gemmaq.checkpoint import Checkpoint
from gemmaq.encodings import ENCODINGS
from gemmaq.methods import AUTO, METHODS
from gemmaq.methods.lattice import GridFit
from gemmaq.planning.format import Format
from gemmaq.planning.plan import Plan
from gemmaq.planning.planner import make_plan
from gemmaq.planning.request import Request

PREFIX = "drafter."
"""Before the names of a drafter's tensors in plans and records; in its file they have none."""

_Value = TypeVar("_Value")


def with_drafter(
    plan: Plan, checkpoint: Checkpoint, request: Request, target: Format, fits: Mapping[str, GridFit]
) -> Plan:
    """The plan of a model together with that of its drafter, if it has one that is asked for.

    Args:
        plan: plan of the model.
        checkpoint: the model.
        request: types, methods and containers.
        target: demands of the container.
        fits: name in the drafter -> the grid that the weights lie on.

    Raises:
        InputError: the container cannot hold what the recipe asks for.
    """
    drafter = checkpoint.drafter if request.draft else None
    if drafter is None:
        return plan
    if not target.gguf_names:
        left_out = f"the drafter is left out of {target.name}, whose runtimes load the folder that it comes in"
        return replace(plan, notes=(*plan.notes, left_out))
    own = _apart(make_plan(drafter, _request_for(request, drafter), target, fits=fits))
    notes, warnings = ([f"drafter: {sentence}" for sentence in told] for told in (own.notes, own.warnings))
    return replace(plan, drafter=own, notes=(*plan.notes, *notes), warnings=(*plan.warnings, *warnings))


def _request_for(request: Request, drafter: Checkpoint) -> Request:
    """The request for a drafter: the target's type, by a method that does not run the model.

    Types of single tensors are meant for the target. A drafter that is quantized already keeps its types. Q4_0 replaces
    a type that needs an importance matrix, which no drafter has.
    """
    recipe = request.recipe
    if recipe.needs_importance:
        recipe = replace(recipe, body=ENCODINGS["q4_0"], mixture=None)
    calibrated = recipe.method in METHODS and METHODS[recipe.method].is_calibrated
    keeps = not recipe.body.is_float and not drafter.body.is_float
    own = replace(
        recipe,
        embedding=None,
        layer_embedding=None,
        layer_projection=None,
        rules=(),
        method=AUTO if calibrated else recipe.method,
        keep=recipe.keep or keeps,
    )
    return replace(request, recipe=own, mmproj=None, dense_heads=False, draft=False)


def _apart(plan: Plan) -> Plan:
    """The plan of a drafter with the prefix before all names."""
    tensors = tuple(
        replace(tensor, name=PREFIX + tensor.name, source=replace(tensor.source, name=PREFIX + tensor.source.name))
        for tensor in plan.tensors
    )
    generated = tuple(replace(array, name=PREFIX + array.name) for array in plan.generated)
    return replace(plan, tensors=tensors, generated=generated)


def prefixed(values: Mapping[str, _Value]) -> dict[str, _Value]:
    """Values of a drafter's tensors by names with the prefix."""
    return {PREFIX + name: value for name, value in values.items()}


def divided(values: Mapping[str, _Value]) -> tuple[dict[str, _Value], dict[str, _Value]]:
    """Values of the target's and of the drafter's tensors, each by its own name."""
    drafter = {name: value for name, value in values.items() if name.startswith(PREFIX)}
    target = {name: value for name, value in values.items() if name not in drafter}
    return target, {name.removeprefix(PREFIX): value for name, value in drafter.items()}
