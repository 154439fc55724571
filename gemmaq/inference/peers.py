"""The processes of a run that torchrun started, or one alone, and what they send to each other.

What they exchange lies in main memory and goes through gloo. Whoever fails says why in the run's key-value store. Who
waits for another process, or has lost it, looks there, so that all end with the same error.
"""

from __future__ import annotations

import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from gemmaq.errors import GemmaqError, NetworkError, UsageError

if TYPE_CHECKING:
    import torch

TIMEOUT = timedelta(hours=2)
"""How long a process waits for another one that is still there."""
_FAILED, _HEARD = "gemmaq/failed", "gemmaq/heard"
_GRACE = 5.0
"""Seconds in which a process whose connection broke looks for the reason."""
_HEARING = 0.5
"""Seconds between two looks for errors of other processes, while waiting for them."""
_waiting: list[threading.Thread] = []
"""Threads that wait for other processes."""
_Value = TypeVar("_Value")


class LostError(NetworkError):
    """Another process of the run has ended or cannot be reached."""


@dataclass(frozen=True, slots=True)
class Peers:
    """The processes of a run, as one of them sees them.

    Attributes:
        rank: number of this process, from 0.
        size: number of processes.
        store: key-value store of the run, None for a process alone.
    """

    rank: int = 0
    size: int = 1
    store: Any = field(default=None, repr=False, compare=False)

    @property
    def main(self) -> bool:
        """Whether this is the process that writes files and prints."""
        return self.rank == 0

    @property
    def last(self) -> int:
        """Number of the last process."""
        return self.size - 1

    def share(self, count: int, unit: int = 1) -> slice:
        """This process's part of a number of things: a run of whole units, or nothing.

        Args:
            count: number of things.
            unit: things that stay together; the last unit may have fewer.
        """
        return self.shares(count, unit)[self.rank]

    def shares(self, count: int, unit: int = 1) -> list[slice]:
        """The parts of all processes; see `share`. They are as even as units allow, the larger ones first."""
        units, start, found = -(-count // unit), 0, []
        for rank in range(self.size):
            end = min(start + unit * (units // self.size + (rank < units % self.size)), count)
            found.append(slice(start, end))
            start = end
        return found

    def send(self, value: object, to: int) -> None:
        """Send a value to another process, which calls `receive`.

        Raises:
            LostError: it has ended.
        """
        import torch

        content = torch.frombuffer(bytearray(pickle.dumps(value, pickle.HIGHEST_PROTOCOL)), dtype=torch.uint8)
        self.send_tensor(torch.tensor([len(content)]), to)()
        self.send_tensor(content, to)()

    def receive(self, origin: int) -> Any:
        """The next value that another process sends to this one.

        Raises:
            LostError: it has ended.
        """
        import torch

        size = torch.zeros(1, dtype=torch.int64)
        self.receive_tensor(size, origin)
        content = torch.empty(int(size), dtype=torch.uint8)
        self.receive_tensor(content, origin)
        return pickle.loads(content.numpy().data)

    def gather(self, value: _Value) -> list[_Value]:
        """The values of all processes by rank, in the main process; nothing in the others.

        Raises:
            LostError: a process has ended.
        """
        if not self.main:
            self.send(value, 0)
            return []
        return [value, *(self.receive(origin) for origin in range(1, self.size))]

    def broadcast(self, value: _Value) -> _Value:
        """The main process's value, in all processes.

        Raises:
            LostError: a process has ended.
        """
        if not self.main:
            received: _Value = self.receive(0)
            return received
        for to in range(1, self.size):
            self.send(value, to)
        return value

    def gather_all(self, value: _Value) -> list[_Value]:
        """The values of all processes by rank, in all processes.

        Raises:
            LostError: a process has ended.
        """
        return self.broadcast(self.gather(value))

    def send_tensor(self, tensor: torch.Tensor, to: int) -> Callable[[], None]:
        """Begin to send a tensor of main memory, which must not change until the function that is returned has ended.

        Raises:
            LostError: the process has ended.
        """
        from torch import distributed

        with _watched():
            work: Any = distributed.isend(tensor.contiguous(), to)
        return lambda: _patiently(work.wait, self.store)

    def receive_tensor(self, into: torch.Tensor, origin: int) -> None:
        """Receive a tensor into a contiguous one of the same shape and dtype in main memory.

        Raises:
            LostError: the process has ended.
        """
        from torch import distributed

        _patiently(lambda: distributed.recv(into, origin), self.store)


ALONE = Peers()


def _patiently(wait: Callable[[], object], store: Any) -> None:
    """Wait in a thread, so that signals and errors of other processes are heard meanwhile.

    Raises:
        LostError: another process has ended, or has failed.
    """
    problem: list[BaseException] = []
    ended = threading.Event()

    def run() -> None:
        try:
            wait()
        except BaseException as error:
            problem.append(error)
        finally:
            ended.set()

    thread = threading.Thread(target=run, daemon=True)
    _waiting.append(thread)
    thread.start()
    with _watched():
        while not ended.wait(_HEARING):
            if store.check([_FAILED]):
                raise RuntimeError("another process has failed")
        _waiting.remove(thread)
        if problem:
            raise problem[0]


def is_stuck() -> bool:
    """Whether a thread waits for a process that will not answer: it can only be ended with this process."""
    return any(thread.is_alive() for thread in _waiting)


@contextmanager
def _watched() -> Iterator[None]:
    """Turn a broken connection into an error for users."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        raise LostError(
            "another process of this run has ended, or cannot be reached",
            "torchrun's report above or below says which; start the run again",
        ) from error


def expected() -> int:
    """Number of processes that torchrun has started, 1 without it."""
    number = os.environ.get("WORLD_SIZE", "1")
    return int(number) if number.isascii() and number.isdigit() and int(number) else 1


def here() -> int:
    """Number of processes that torchrun has started on this machine, 1 without it."""
    number = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return int(number) if expected() > 1 and number.isascii() and number.isdigit() and int(number) else 1


@contextmanager
def joined(backend: str = "gloo") -> Iterator[Peers]:
    """Join the other processes, if torchrun started this one; an error of one is an error of all.

    Args:
        backend: what torch's own collective operations go through.

    Raises:
        UsageError: the others cannot be found.
        LostError: one of them has ended.
        GemmaqError: what another process failed with.
    """
    if expected() == 1:
        yield ALONE
        return
    from torch import distributed
    from torch.distributed.rendezvous import rendezvous

    try:
        store, rank, size = next(rendezvous("env://", timeout=TIMEOUT))
        distributed.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
    except (RuntimeError, ValueError) as error:
        raise UsageError(
            f"WORLD_SIZE is {expected()}, and the other processes cannot be found: {str(error).splitlines()[0]}",
            "start all of them with torchrun, or unset WORLD_SIZE",
        ) from error
    try:
        yield Peers(rank, size, store)
    except Exception as error:
        raised = _shared(error, store, rank)
        _await_main(store, rank)
        if raised is error:
            raise
        raise raised from error
    distributed.destroy_process_group()


def _shared(error: Exception, store: Any, rank: int) -> Exception:
    """The error that a run ends with: the first that was told, if this one only says that a process is gone."""
    if not isinstance(error, LostError):
        return _told(error, store, rank)
    until = time.monotonic() + _GRACE
    while time.monotonic() < until:
        with suppress(RuntimeError, ValueError):
            if store.check([_FAILED]):
                found: Exception = pickle.loads(store.get(_FAILED))
                return found
        time.sleep(0.1)
    return error


def _told(error: Exception, store: Any, rank: int) -> Exception:
    """Tell the other processes of an error."""
    known = (
        error if isinstance(error, GemmaqError) else RuntimeError(f"process {rank}: {type(error).__name__}: {error}")
    )
    with suppress(RuntimeError, ValueError, pickle.PicklingError, TypeError):
        store.set(_FAILED, pickle.dumps(known))
    return error


def _await_main(store: Any, rank: int) -> None:
    """Stay until the main process has heard of an error: torchrun ends it as soon as another process has ended."""
    until = time.monotonic() + TIMEOUT.total_seconds()
    with suppress(RuntimeError, ValueError):
        if rank == 0:
            store.set(_HEARD, b"1")
        while rank and not store.check([_HEARD]) and time.monotonic() < until:
            time.sleep(_HEARING)
