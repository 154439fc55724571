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


def together(size: int, function: Callable[[Peers], _Result]) -> list[_Result]:
    """What a function returns in each of several processes."""
    queues: dict[tuple[int, int], Queue[Any]] = {(a, b): Queue() for a in range(size) for b in range(size)}
    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(function, [ThreadPeers(rank, size, queues) for rank in range(size)]))
