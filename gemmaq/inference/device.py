"""The forward pass, a decoder layer at a time: whatever the model's size, memory holds one layer and the activations.

The layers are transformers' own, in f32, with the weights that a checkpoint really holds. Everything here needs the
extra `torch`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, TypeVar

from gemmaq.errors import UsageError

if TYPE_CHECKING:
    import torch

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

Progress = Callable[[str, int, int], None]
"""Called with what is being done, steps done and in all."""


def need(what: str) -> None:
    """See to it that torch and transformers are there.

    Raises:
        UsageError: they are not; says how to install them.
    """
    for package in ("torch", "transformers"):
        if find_spec(package) is None:
            raise UsageError(f"{what} needs {package}, which is not installed", "pip install 'gemmaq[torch]'")


@dataclass(frozen=True, slots=True)
class Machine:
    """Where computing happens.

    Attributes:
        device: torch's.
        pool: workers of the CPU, each computing with one thread, so that results do not depend on how many there are;
            None where another device does the work.
    """

    device: torch.device
    pool: ThreadPoolExecutor | None

    @property
    def batch(self) -> int:
        """Sequences that go through a layer together."""
        return 1 if self.pool else 8

    def each(self, function: Callable[[_Item], _Result], items: Iterable[_Item]) -> list[_Result]:
        """The results of a function, in order."""
        if self.pool is None:
            return [function(item) for item in items]
        return list(self.pool.map(_quietly(function), items))


def _quietly(function: Callable[[_Item], _Result]) -> Callable[[_Item], _Result]:
    """Without a graph for gradients; the switch is a thread's own."""

    def run(item: _Item) -> _Result:
        import torch

        with torch.no_grad():
            return function(item)

    return run


@contextmanager
def machine(device: str | None, threads: int) -> Iterator[Machine]:
    """A device to compute on.

    Args:
        device: `cpu`, `cuda`, `cuda:1`, `mps`, or None for the best there is.
        threads: workers if it is the CPU.

    Raises:
        UsageError: there is no such device.
    """
    import torch

    found = _device(device)
    before = torch.get_num_threads()
    if found.type != "cpu":
        with torch.no_grad():
            yield Machine(found, None)
        return
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool, torch.no_grad():
            yield Machine(found, pool)
    finally:
        torch.set_num_threads(before)


def _device(name: str | None) -> torch.device:
    import torch

    if name is None:
        cuda = torch.cuda.is_available()
        return torch.device("cuda" if cuda else "mps" if torch.backends.mps.is_available() else "cpu")
    try:
        found = torch.device(name)
        torch.empty(1, device=found)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"there is no device {name!r} here", str(error).splitlines()[0]) from error
    if found.type == "meta":
        raise UsageError(f"nothing can be computed on device {name!r}")
    return found


def aligned(*shape: int) -> torch.Tensor:
    """Room for f32 numbers where every product of matrices finds them alike.

    How MKL sums depends on where its arguments begin within a cache line. torch aligns what it allocates; NumPy does
    not, so that results would differ from run to run.
    """
    import torch

    return torch.empty(shape, dtype=torch.float32)


def silent() -> None:
    """Keep transformers from writing to the terminal."""
    from transformers.utils import logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
