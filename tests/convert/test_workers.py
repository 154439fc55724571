"""Work shared out to threads: results in order, a buffer a thread, and an end at the first failure."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import pytest

from gemmaq.convert.workers import run_all
from gemmaq.progress import Progress, ignore


@dataclass(frozen=True)
class Piece:
    number: int
    nbytes: int = 3


PIECES = [Piece(number) for number in range(50)]


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_results_are_in_order_and_progress_adds_up(threads: int) -> None:
    reports: list[Progress] = []

    def work(piece: Piece, buffer: list[int]) -> int:
        time.sleep(0.001 * (piece.number % 3))
        buffer.append(piece.number)
        return piece.number

    results = run_all(work, PIECES, buffers=list, threads=threads, task="testing", progress=reports.append)
    assert results == list(range(50))
    assert reports == [Progress("testing", done, 150, "bytes") for done in range(3, 151, 3)]


def test_each_thread_has_buffers_of_its_own() -> None:
    owners: dict[int, set[int]] = {}

    def work(piece: Piece, buffer: bytearray) -> None:
        owners.setdefault(id(buffer), set()).add(threading.get_ident())
        time.sleep(0.001)

    run_all(work, PIECES, buffers=bytearray, threads=4, task="testing", progress=ignore)
    assert 1 <= len(owners) <= 4 and all(len(threads) == 1 for threads in owners.values())


@pytest.mark.parametrize("failure", [ValueError("broken"), KeyboardInterrupt()])
def test_the_first_failure_stops_all(failure: BaseException) -> None:
    started: list[int] = []

    def work(piece: Piece, _: bytearray) -> None:
        started.append(piece.number)
        if piece.number == 3:
            raise failure
        time.sleep(0.01)

    with pytest.raises(type(failure)):
        run_all(work, PIECES, buffers=bytearray, threads=3, task="testing", progress=ignore)
    assert len(started) < 12


def test_no_work_is_no_failure() -> None:
    assert run_all(lambda piece, _: piece, [], buffers=bytearray, threads=2, task="testing", progress=ignore) == []
