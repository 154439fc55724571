"""Choose a type for every group of tensors: the least predicted loss within a number of bytes.

This is the multiple-choice knapsack problem. A multiplier on bytes gives a lower bound of the loss and a first
solution; dynamic programming over the options that the bound cannot rule out makes it the best one. Where too many
states are left, only those nearest to the bound are kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    _F64 = NDArray[np.float64]
    _I64 = NDArray[np.int64]

_STATES = 4000
"""States kept after every group."""
_SLACK = 1e-9
"""Rounding of sums of losses, as a share of their size."""


@dataclass(frozen=True, slots=True)
class Option:
    """A type that a group of tensors can have.

    Attributes:
        type: name of the encoding.
        size: bytes that it takes.
        loss: predicted loss, in nats.
    """

    type: str
    size: int
    loss: float


@dataclass(frozen=True, slots=True)
class Group:
    """Tensors that get the same type.

    Attributes:
        names: canonical names.
        options: types to choose from, one at least.
    """

    names: tuple[str, ...]
    options: tuple[Option, ...]

    @property
    def least(self) -> int:
        """Bytes in its smallest type."""
        return min(option.size for option in self.options)


def united(groups: Sequence[Group], alike: Sequence[Sequence[str]]) -> list[Group]:
    """Groups with those as one whose tensors must have the same type.

    Args:
        groups: no tensor is in two of them.
        alike: names of tensors that must be alike, a sequence for each set.

    Returns:
        The groups in the order of their first tensors; sizes and losses of united ones add up, and their options are
        the types that all of them have.
    """
    number = {name: at for at, group in enumerate(groups) for name in group.names}
    parent = list(range(len(groups)))

    def root(at: int) -> int:
        while parent[at] != at:
            at = parent[at]
        return at

    for names in alike:
        roots = sorted({root(number[name]) for name in names if name in number})
        for other in roots[1:]:
            parent[other] = roots[0]
    members: dict[int, list[Group]] = {}
    for at, group in enumerate(groups):
        members.setdefault(root(at), []).append(group)
    return [_one(found) for found in members.values()]


def _one(groups: Sequence[Group]) -> Group:
    """Several groups as one."""
    if len(groups) == 1:
        return groups[0]
    tables = [{option.type: option for option in group.options} for group in groups]
    options = []
    for name in tables[0]:
        same = [table[name] for table in tables if name in table]
        if len(same) == len(tables):
            options.append(Option(name, sum(o.size for o in same), sum(o.loss for o in same)))
    return Group(tuple(name for group in groups for name in group.names), tuple(options))


def choose(groups: Sequence[Group], budget: int) -> Mapping[str, str] | None:
    """The types with the least sum of losses that take at most so many bytes.

    The same groups and budget always give the same types; of types with equal loss the smallest is taken.

    Args:
        groups: groups with their options.
        budget: bytes.

    Returns:
        Canonical name -> name of the type; None if even the smallest types take more bytes.
    """
    kept = [_undominated(group.options) for group in groups]
    if not all(kept) or sum(options[0].size for options in kept) > budget:
        return None
    chosen = _best(kept, budget)
    return {
        name: options[at].type for group, options, at in zip(groups, kept, chosen, strict=True) for name in group.names
    }


def _undominated(options: Sequence[Option]) -> list[Option]:
    """The options that no other one beats in both size and loss, by growing size."""
    kept: list[Option] = []
    for option in sorted(options, key=lambda o: (o.size, o.loss, o.type)):
        if not kept or option.loss < kept[-1].loss:
            kept.append(option)
    return kept


def _hull(options: Sequence[Option]) -> list[int]:
    """Indices of the options on the lower convex hull of loss over size."""
    hull: list[int] = []
    for at, option in enumerate(options):
        while len(hull) > 1:
            first, second = options[hull[-2]], options[hull[-1]]
            gained = (first.loss - second.loss) * (option.size - second.size)
            if gained > (second.loss - option.loss) * (second.size - first.size):
                break
            hull.pop()
        hull.append(at)
    return hull


def _greedy(options: Sequence[Sequence[Option]], budget: int) -> tuple[list[int], float]:
    """A first solution: steps along the hulls in the order of what a byte gains; and the price of the last one.

    The price, in nats a byte, is that of the first step that does not fit; 0 if all do.
    """
    steps = []
    for group, of_group in enumerate(options):
        hull = _hull(of_group)
        for before, after in pairwise(hull):
            size = of_group[after].size - of_group[before].size
            gain = (of_group[before].loss - of_group[after].loss) / size
            steps.append((-gain, group, before, after, size))
    chosen, left = [0] * len(options), budget - sum(of_group[0].size for of_group in options)
    price = 0.0
    for negative, group, before, after, size in sorted(steps):
        if chosen[group] == before and size <= left:
            chosen[group], left = after, left - size
        elif not price:
            price = -negative
    return chosen, price


def _best(options: Sequence[Sequence[Option]], budget: int) -> list[int]:
    """The best solution, as an index for each group."""
    chosen, price = _greedy(options, budget)
    if not price:
        return chosen
    sizes = [np.array([o.size for o in of_group], np.int64) for of_group in options]
    losses = [np.array([o.loss for o in of_group], np.float64) for of_group in options]
    priced = [loss + price * size for loss, size in zip(losses, sizes, strict=True)]
    extra = [values - values.min() for values in priced]  # what an option costs above the bound
    bound = sum(float(values.min()) for values in priced) - price * budget
    known = sum(float(loss[at]) for loss, at in zip(losses, chosen, strict=True))
    gap = known - bound + _SLACK * (abs(known) + abs(bound) + price * budget)
    found = _search(sizes, extra, budget=budget, price=price, gap=gap)
    if found is None or sum(float(loss[at]) for loss, at in zip(losses, found, strict=True)) > known:
        return chosen
    return found


def _search(sizes: Sequence[_I64], extra: Sequence[_F64], *, budget: int, price: float, gap: float) -> list[int] | None:
    """Dynamic programming over states (bytes, cost above the bound), a group at a time.

    A state is dropped if it cannot end within the budget, cannot beat the known solution, or if another one takes fewer
    bytes for no greater loss. What a state costs above the bound only grows, so that `gap` is the most it may be.
    """
    rest = np.concatenate([np.cumsum([int(size.min()) for size in sizes][::-1])[::-1], [0]])
    used, cost = np.zeros(1, np.int64), np.zeros(1)
    steps: list[tuple[_I64, _I64]] = []
    for at, (size, above) in enumerate(zip(sizes, extra, strict=True)):
        usable = np.flatnonzero(above <= gap)
        total = (used[:, None] + size[usable]).ravel()
        paid = (cost[:, None] + above[usable]).ravel()
        source = np.repeat(np.arange(len(used)), len(usable))
        option = np.tile(usable, len(used))
        kept = np.flatnonzero((paid <= gap) & (total + rest[at + 1] <= budget))
        if not len(kept):
            return None
        loss = paid[kept] - price * total[kept]  # up to a constant
        order = kept[np.lexsort((option[kept], loss, total[kept]))]
        loss = paid[order] - price * total[order]
        order = order[np.flatnonzero(loss < np.concatenate([[np.inf], np.minimum.accumulate(loss)[:-1]]))]
        if len(order) > _STATES:
            order = np.sort(order[np.argsort(paid[order], kind="stable")[:_STATES]])
            order = order[np.argsort(total[order], kind="stable")]
        used, cost = total[order], paid[order]
        steps.append((source[order], option[order]))
    state = int(np.argmin(cost - price * used))
    found = []
    for source, option in reversed(steps):
        found.append(int(option[state]))
        state = int(source[state])
    return found[::-1]
