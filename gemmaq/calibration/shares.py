"""Work on the matrices of a layer, shared out among processes by what it costs."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Piece:
    """One piece of work.

    Attributes:
        group: pieces of one group need the same preparation.
        preparation: cost of that preparation, paid once by every process that has pieces of the group.
        cost: cost of the piece itself, in the same unit.
    """

    group: Hashable
    preparation: float
    cost: float


def solving(rows: int, columns: int, group: Hashable, sweeps: int = 0) -> Piece:
    """The work of choosing the codes of a matrix by GPTQ, in multiplications and additions.

    Inverting the Hessian takes two thirds of columns^3, for Cholesky's factor and its inverse; every row a triangle of
    columns^2 / 2 products, and with descent its gradient, once and again in every sweep.
    """
    products = rows * columns**2
    return Piece(group, 2 / 3 * columns**3, products * (1 + (2 * (1 + sweeps) if sweeps else 0)))


def shared_out(pieces: Sequence[Piece], processes: int) -> list[int]:
    """The process that takes each piece: the most costly pieces first, each to where it is done the earliest."""
    loads, groups = [0.0] * processes, [set[Hashable]() for _ in range(processes)]
    taken = [0] * len(pieces)
    for at in sorted(range(len(pieces)), key=lambda at: (-pieces[at].cost - pieces[at].preparation, at)):
        piece = pieces[at]
        costs = [piece.cost + (0 if piece.group in known else piece.preparation) for known in groups]
        taken[at] = min(range(processes), key=lambda rank: (loads[rank] + costs[rank], rank))
        loads[taken[at]] += costs[taken[at]]
        groups[taken[at]].add(piece.group)
    return taken
