"""Compiled functions with arguments and results of every kind."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from gemmaq.jit import compiled


@compiled
def pairs(numbers: Any, least: Any) -> Any:
    total, count = 0.0, 0
    for row in numbers:
        for number in row:
            if number >= least:
                total += number / 2.0
                count += 1
    return total, count


@compiled
def shifted(out: Any, numbers: Any, more: Any) -> None:
    for i in range(out.size):
        out[i] = np.uint8(numbers[0] + numbers[1] + more)


class Pair(NamedTuple):
    """A rule of two numbers and where it counts."""

    first: int
    second: float
    where: tuple[Any, ...] = ()


@compiled
def by_rule(out: Any, rule: Any) -> None:
    for i in range(out.size):
        out[i] = rule.first + rule.second * rule.where[0][i]


@compiled
def is_small(number: Any) -> Any:
    return number < 3


@compiled
def with_room(count: Any) -> Any:
    room = np.empty(count, np.float64)
    for i in range(count):
        room[i] = i
    return room.sum()


@compiled
def unlisted(numbers: Any) -> Any:
    total = 0
    for number in numbers:
        total += number + number if is_small(number) else 2 * number
    return total
