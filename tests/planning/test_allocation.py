"""The choice of types within a number of bytes, against all choices there are."""

from __future__ import annotations

import itertools
import time

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from gemmaq.planning.allocation import Group, Option, choose, united

OPTIONS = st.lists(
    st.tuples(st.integers(1, 60), st.floats(0, 2, allow_subnormal=False)), min_size=1, max_size=5, unique_by=lambda o: o
)


def group_of(number: int, options: list[tuple[int, float]]) -> Group:
    return Group((f"t{number}",), tuple(Option(f"{at}", size, loss) for at, (size, loss) in enumerate(options)))


def cost(groups: list[Group], types: dict[str, str]) -> tuple[int, float]:
    """Bytes and loss of a choice."""
    chosen = [next(o for o in g.options if o.type == types[g.names[0]]) for g in groups]
    return sum(o.size for o in chosen), sum(o.loss for o in chosen)


@given(st.lists(OPTIONS, min_size=1, max_size=6), st.integers(0, 300))
@settings(max_examples=300, deadline=None)
def test_no_other_choice_within_the_budget_has_less_loss(listed: list[list[tuple[int, float]]], budget: int) -> None:
    groups = [group_of(number, options) for number, options in enumerate(listed)]
    losses = [
        sum(o.loss for o in choice)
        for choice in itertools.product(*(g.options for g in groups))
        if sum(o.size for o in choice) <= budget
    ]
    types = choose(groups, budget)
    if not losses:
        assert types is None
        return
    assert types is not None
    size, loss = cost(groups, dict(types))
    assert size <= budget
    assert loss <= min(losses) + 1e-9


def like_a_model(count: int, seed: int = 0) -> list[Group]:
    """Groups of many sizes, whose losses halve with every half bit or so, in no two groups alike."""
    random = np.random.default_rng(seed)
    bits = np.array([2.06, 2.6, 3.06, 3.4, 4.25, 4.5, 5.0, 5.5, 6.0, 6.56, 8.5, 16])
    groups = []
    for number in range(count):
        weights = int(random.choice([65536, 262144, 1310720, 167772160])) * 8
        losses = random.lognormal(-6, 1.5) * 4.0 ** -(bits - 4.5) * random.lognormal(0, 0.2, len(bits))
        losses[-1] = 0
        options = [Option(f"{b}", int(weights * b / 8), float(v)) for b, v in zip(bits, losses, strict=True)]
        groups.append(Group((f"t{number}",), tuple(options)))
    return groups


def test_hundreds_of_tensors_take_less_than_a_second_and_leave_nothing_that_a_better_type_would_fit_in() -> None:
    groups = like_a_model(700)
    least, most = (sum(f(o.size for o in g.options) for g in groups) for f in (min, max))
    for share in (0.15, 0.35, 0.6):
        budget, started = int(least + share * (most - least)), time.process_time()
        types = choose(groups, budget)
        assert time.process_time() - started < 1
        assert types is not None
        size, _ = cost(groups, dict(types))
        left = budget - size
        assert 0 <= left < 0.001 * budget
        for group in groups:
            taken = next(o for o in group.options if o.type == types[group.names[0]])
            assert not any(o.loss < taken.loss and o.size - taken.size <= left for o in group.options)


def test_the_choice_does_not_depend_on_when_it_is_made() -> None:
    groups = like_a_model(120)
    budget = sum(g.options[4].size for g in groups)
    assert choose(groups, budget) == choose(like_a_model(120), budget)


def test_of_types_with_equal_loss_the_smallest_is_taken() -> None:
    group = Group(("t",), (Option("a", 3, 0.5), Option("b", 2, 0.5), Option("c", 1, 0.9)))
    assert choose([group], 9) == {"t": "b"}


def test_tensors_that_must_be_alike_get_one_type_that_all_of_them_can_have() -> None:
    groups = [
        Group(("q",), (Option("a", 10, 0.0), Option("b", 5, 1.0))),
        Group(("o",), (Option("a", 10, 0.0), Option("b", 5, 0.1))),
        Group(("k", "v"), (Option("b", 4, 0.2), Option("a", 8, 0.0), Option("c", 1, 0.3))),
    ]
    together, alone = united(groups, [("q", "k", "v"), ("gone",)])
    assert together.names == ("q", "k", "v")
    assert together.options == (Option("a", 18, 0.0), Option("b", 9, 1.2))
    assert alone == groups[1]
    assert choose([together, alone], 23) == {"q": "a", "k": "a", "v": "a", "o": "b"}
