"""The device that computes: CPU workers, a GPU, or an Apple chip. Everything here needs the extra `torch`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from gemmaq.errors import UsageError, unknown
from gemmaq.inference.peers import expected

if TYPE_CHECKING:
    import torch

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


_DEVICES = ("cpu", "cuda", "cuda:1", "mps")


def require_torch(purpose: str) -> None:
    """Check that torch and transformers are installed.

    Args:
        purpose: What needs them, for the message.

    Raises:
        UsageError: One is missing; the hint says how to install it.
    """
    for package in ("torch", "transformers"):
        if find_spec(package) is None:
            raise UsageError(f"{purpose} needs {package}, which is not installed", "pip install torch transformers")


@dataclass(frozen=True, slots=True)
class Device:
    """A device that computes.

    Attributes:
        torch_device: The device in torch's terms.
        pool: Workers of the CPU, one torch thread each, so that results do not depend on their number; None for any
            other device.
    """

    torch_device: torch.device
    pool: ThreadPoolExecutor | None

    @property
    def batch(self) -> int:
        """Sequences that go through a layer together."""
        return 1 if self.pool else 8

    def map(self, function: Callable[[_Item], _Result], items: Iterable[_Item]) -> list[_Result]:
        """Apply a function to every item, by all workers, without gradients; results in the order of the items."""
        if self.pool is None:
            return [function(item) for item in items]
        return list(self.pool.map(_without_gradients(function), items))


def _without_gradients(function: Callable[[_Item], _Result]) -> Callable[[_Item], _Result]:
    """Wrap a function for a worker: torch's switch for gradients belongs to the thread."""

    def run(item: _Item) -> _Result:
        import torch

        with torch.no_grad():
            return function(item)

    return run


@contextmanager
def open_device(name: str | None, threads: int) -> Iterator[Device]:
    """Open a device for computing without gradients.

    Args:
        name: `cpu`, `cuda`, `cuda:1`, `mps`, or None for the best device there is: the CPU for each of several
            processes.
        threads: Workers, if it is the CPU.

    Raises:
        UsageError: There is no such device.
    """
    import torch

    device = _torch_device(name)
    threads_before = torch.get_num_threads()
    if device.type != "cpu":
        with torch.no_grad():
            yield Device(device, None)
        return
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool, torch.no_grad():
            yield Device(device, pool)
    finally:
        torch.set_num_threads(threads_before)


def _torch_device(name: str | None) -> torch.device:
    import torch

    if name is None and expected() > 1:
        return torch.device("cpu")
    if name is None:
        cuda = torch.cuda.is_available()
        return torch.device("cuda" if cuda else "mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise unknown("device", name, _DEVICES) from error
    if device.type == "meta":
        raise UsageError(f"device {name!r} cannot compute", "--device cpu")
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(f"device {name!r} is not available here: {_why_not(device)}", "--device cpu") from error
    return device


def _why_not(device: torch.device) -> str:
    """Why torch does not have a device."""
    import torch

    count = torch.cuda.device_count() if device.type == "cuda" and torch.cuda.is_available() else 0
    if count:
        return f"torch finds {count} of them, counted from 0"
    if device.type == "cuda" and torch.version.cuda is None and torch.version.hip is None:
        return "torch was installed without CUDA"
    return "torch finds none"


def free_memory(device: torch.device) -> int | None:
    """Bytes that are free for more, on the device or in the machine's memory; None where the system does not say."""
    import torch

    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    except OSError:
        return None
    sizes = {line.partition(":")[0]: line.split()[1] for line in lines if len(line.split()) > 1}
    return 1024 * int(sizes["MemAvailable"]) if "MemAvailable" in sizes else None


def aligned(*shape: int) -> torch.Tensor:
    """An uninitialized f32 tensor, aligned so that matrix products are the same in every run.

    The order of MKL's sums depends on where its arguments begin within a cache line. torch aligns what it allocates,
    NumPy does not.
    """
    import torch

    return torch.empty(shape, dtype=torch.float32)


def silence_transformers() -> None:
    """Keep transformers from writing to the terminal."""
    from transformers.utils import logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
