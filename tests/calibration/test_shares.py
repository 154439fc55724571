"""Work is shared out by what it costs, preparations included."""

from __future__ import annotations

from gemmaq.calibration.shares import Piece, shared_out, solving


def load(pieces: list[Piece], taken: list[int], processes: int) -> list[float]:
    mine = [[piece for piece, rank in zip(pieces, taken, strict=True) if rank == at] for at in range(processes)]
    return [sum(p.cost for p in some) + sum({p.group: p.preparation for p in some}.values()) for some in mine]


def test_one_process_takes_everything() -> None:
    assert shared_out([solving(10, 20, "a"), solving(30, 20, "b")], 1) == [0, 0]
    assert shared_out([], 3) == []


def test_a_layer_is_shared_out_evenly() -> None:
    """Query, key, value; output; gate and up; down, as in a model of 12B. The last has four fifths of the work, and
    every process that shares it has to invert its Hessian, which is 0.18 of the whole.
    """
    sizes = [(4096, 3840, "a"), (2048, 3840, "a"), (2048, 3840, "a"), (3840, 4096, "b")]
    sizes += [(15360, 3840, "c"), (15360, 3840, "c"), (3840, 15360, "d")]
    whole = sum(load([solving(*size, 2) for size in sizes], [0] * 7, 1))
    for processes, most in ((1, 1.0), (2, 0.6), (4, 0.4), (8, 0.3)):
        pieces = [solving(rows // processes, *rest, 2) for rows, *rest in sizes for _ in range(processes)]
        loads = load(pieces, shared_out(pieces, processes), processes)
        assert max(loads) < most * whole * (1 + 1e-9), max(loads) / whole


def test_pieces_that_need_the_same_preparation_stay_together_where_it_costs_more_than_they_do() -> None:
    pieces = [Piece(group, 100, 1) for group in "abab"]
    a, b, *again = shared_out(pieces, 2)
    assert a != b and again == [a, b]


def test_sweeps_cost_more_than_the_first_pass() -> None:
    assert solving(8, 8, "a", 2).cost == 7 * solving(8, 8, "a").cost
