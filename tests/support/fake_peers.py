"""Processes that are threads of this one, and send to each other through queues."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from queue import Queue
from typing import TYPE_CHECKING, Any, TypeVar

from gemmaq.inference.peers import Peers

if TYPE_CHECKING:
    import torch

_Result = TypeVar("_Result")


class ThreadPeers(Peers):
    """One of them."""

    __slots__ = ()

    def send_tensor(self, tensor: torch.Tensor, to: int) -> Callable[[], None]:
        self.store[self.rank, to].put(tensor.detach().clone())
        return lambda: None

    def receive_tensor(self, into: torch.Tensor, origin: int) -> None:
        into.copy_(self.store[origin, self.rank].get(timeout=60))


class Counting(ThreadPeers):
    """One of them that counts what is sent."""

    __slots__ = ()

    def send_tensor(self, tensor: torch.Tensor, to: int) -> Callable[[], None]:
        self.store["sent"].put(tensor.nbytes)
        return super().send_tensor(tensor, to)


def together(size: int, function: Callable[[Peers], _Result]) -> list[_Result]:
    """What a function returns in each of several processes."""
    return _run(size, ThreadPeers, _queues(size), function)


def sent(size: int, function: Callable[[Peers], object]) -> int:
    """Bytes of tensors that several processes send to each other."""
    queues = _queues(size)
    queues["sent"] = Queue()
    _run(size, Counting, queues, function)
    return sum(queues["sent"].get() for _ in range(queues["sent"].qsize()))


def _queues(size: int) -> dict[Any, Queue[Any]]:
    return {(a, b): Queue() for a in range(size) for b in range(size)}


def _run(
    size: int, kind: type[ThreadPeers], queues: dict[Any, Queue[Any]], function: Callable[[Peers], _Result]
) -> list[_Result]:
    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(function, [kind(rank, size, queues) for rank in range(size)]))
