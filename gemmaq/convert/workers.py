"""Work shared out to threads; the first failure, or Ctrl-C, stops all of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Protocol, TypeVar

from gemmaq.progress import Progress, ProgressCallback


class Sized(Protocol):
    """A piece of work."""

    @property
    def nbytes(self) -> int:
        """Source bytes it reads, the unit of progress."""


_Piece = TypeVar("_Piece", bound=Sized)
_Buffers = TypeVar("_Buffers")
_Result = TypeVar("_Result")


def run_all(
    work: Callable[[_Piece, _Buffers], _Result],
    pieces: Sequence[_Piece],
    *,
    buffers: Callable[[], _Buffers],
    threads: int,
    task: str,
    progress: ProgressCallback,
) -> list[_Result]:
    """Do every piece of work and return the results in order.

    Args:
        work: called with a piece and the buffers of the thread it runs on.
        pieces: started in this order.
        buffers: creates the buffers of a thread.
        threads: number of workers.
        task: name of the work in reports.
        progress: called after each piece.
    """
    total, done = sum(piece.nbytes for piece in pieces), 0
    queue, lock, stop = iter(enumerate(pieces)), threading.Lock(), threading.Event()
    results: dict[int, _Result] = {}

    def worker() -> None:
        nonlocal done
        reused = buffers()
        while not stop.is_set():
            with lock:
                index, piece = next(queue, (-1, None))
            if piece is None:
                return
            result = work(piece, reused)
            with lock:
                results[index] = result
                done += piece.nbytes
                progress(Progress(task, done, total, "bytes"))

    with ThreadPoolExecutor(threads) as pool:
        futures = [pool.submit(worker) for _ in range(threads)]
        try:
            finished, _ = wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            stop.set()
    for future in finished:
        future.result()
    return [results[index] for index in range(len(pieces))]
