"""A ladder: several types of one model in one run. Each goes to the containers that hold it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gemmaq import containers
from gemmaq.errors import UsageError
from gemmaq.planning.containers import CONTAINERS
from gemmaq.planning.plan import Plan
from gemmaq.planning.recipe import Recipe
from gemmaq.planning.request import Request


def requests(request: Request, recipes: Sequence[Recipe]) -> tuple[Request, ...]:
    """A request for each type.

    A single type goes to all containers; the plan refuses it where a container cannot hold it.

    Args:
        request: all that the types share; its recipe is replaced.
        recipes: types and methods, one for each type.

    Raises:
        UsageError: a type is given twice, no container holds it, or a container holds none of the types.
    """
    labels = [recipe.label for recipe in recipes]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise UsageError(f"--quant has {twice} twice", "give every type once")
    if len(recipes) == 1:
        return (replace(request, recipe=recipes[0]),)
    made = [replace(request, recipe=recipe, to=tuple(c for c in request.to if _holds(c, recipe))) for recipe in recipes]
    homeless = next((each.recipe.label for each in made if not each.to), None)
    if homeless is not None:
        recipe = next(recipe for recipe in recipes if recipe.label == homeless)
        homes = " or ".join(f"--to {name}" for name in CONTAINERS if _holds(name, recipe))
        raise UsageError(f"{' and '.join(request.to)} cannot hold {homeless}", f"leave it out, or add {homes}")
    empty = next((name for name in request.to if not any(name in each.to for each in made)), None)
    if empty is not None:
        raise UsageError(f"{empty} holds none of {', '.join(labels)}", f"leave out --to {empty}, or add a --quant")
    return tuple(made)


def _holds(container: str, recipe: Recipe) -> bool:
    """Whether a container holds the layers' matrices of a type."""
    return recipe.body.name in containers.writer(container).FORMAT.encodings


def check_distinct(plans: Sequence[Plan]) -> None:
    """Refuse types that turn out to be the same.

    Raises:
        UsageError: `auto` is a type that is named, too.
    """
    labels = [(plan.format, plan.label) for plan in plans]
    twice = next((label for container, label in labels if labels.count((container, label)) > 1), None)
    if twice is not None:
        raise UsageError(f"--quant auto is {twice} here, which is named, too", "leave one of them out")


def remarks(requests: Sequence[Request]) -> list[str]:
    """A sentence for each type that does not go to all containers of the run."""
    everywhere = tuple(dict.fromkeys(name for request in requests for name in request.to))
    return [
        f"{request.recipe.label} goes to {' and '.join(request.to)} only: "
        f"{' and '.join(name for name in everywhere if name not in request.to)} cannot hold it"
        for request in requests
        if set(request.to) != set(everywhere)
    ]


def by_type(told: Sequence[tuple[str, Sequence[str]]]) -> list[str]:
    """Sentences about plans, each once, and with the types before it that it is about unless these are all.

    Args:
        told: the type of each plan, and the sentences about it.
    """
    types: dict[str, list[str]] = {}
    for label, sentences in told:
        for sentence in sentences:
            types.setdefault(sentence, []).append(label)
    everything = {label for label, _ in told}
    return [
        sentence if {*labels} == everything else f"{', '.join(dict.fromkeys(labels))}: {sentence}"
        for sentence, labels in types.items()
    ]
