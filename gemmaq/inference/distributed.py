"""One process, or several under torchrun that share a model and its batches: FSDP2, gloo on CPUs and nccl on GPUs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gemmaq.errors import UsageError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from gemmaq.inference.documents import Tokens


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    """The processes that compute together.

    Attributes:
        rank: number of this process, from 0.
        size: number of processes.
        device: torch device of this process.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def main(self) -> bool:
        """Whether this is the process that writes files and prints."""
        return self.rank == 0

    def part(self, batch: Tokens) -> torch.Tensor:
        """This process's rows of a batch, on its device."""
        import torch

        return torch.from_numpy(np.array_split(batch, self.size)[self.rank]).to(self.device)

    def sum(self, *values: float) -> list[float]:
        """Sum each value over all processes."""
        import torch
        from torch import distributed

        if self.size == 1:
            return list(values)
        sums = torch.tensor(values, dtype=torch.float64, device=self.device)
        distributed.all_reduce(sums)
        return sums.tolist()

    def mean(self, value: float) -> float:
        """Average a value over all processes."""
        return self.sum(value)[0] / self.size

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        return self.sum(float(flag))[0] > 0

    def barrier(self) -> None:
        """Wait for all processes."""
        self.sum(0.0)

    def shard(self, network: nn.Module) -> None:
        """Spread the parameters of a network over all processes, layer by layer."""
        if self.size == 1:
            return
        from torch.distributed.fsdp import fully_shard

        for layer in network.get_submodule("layers").children():
            fully_shard(layer)
        fully_shard(network)


def gather(tensor: torch.Tensor) -> torch.Tensor:
    """The whole of a tensor that may be sharded, f32 on the CPU; every process must call this."""
    full: Any = tensor.detach()
    if hasattr(full, "full_tensor"):
        full = full.full_tensor()
    gathered: torch.Tensor = full.float().cpu()
    return gathered


def assign(target: torch.Tensor, values: torch.Tensor) -> None:
    """Overwrite a tensor that may be sharded; every process must pass all values."""
    import torch

    with torch.no_grad():
        tensor: Any = target
        if hasattr(tensor, "device_mesh"):
            from torch.distributed.tensor import distribute_tensor

            values = values.to(tensor.device)
            sharded = distribute_tensor(values, tensor.device_mesh, tensor.placements, src_data_rank=None)
            tensor.to_local().copy_(sharded.to_local())
        else:
            tensor.copy_(values)


@contextmanager
def process_group(device: str | None, batch: int) -> Iterator[ProcessGroup]:
    """Join the other processes if torchrun started this one.

    Args:
        device: name of the device, None for the best one.
        batch: sequences per batch, which the processes divide among themselves.

    Raises:
        UsageError: the device does not exist, or the batch does not divide by the number of processes.
    """
    import torch

    from gemmaq.inference.device import open_device
    from gemmaq.inference.peers import expected, joined

    size, rank = expected(), int(os.environ.get("RANK", "0"))
    if batch % size:
        raise UsageError(
            f"a batch of {batch} sequences does not divide among {size} processes",
            f"choose a --batch that is a multiple of {size}",
        )
    threads = torch.get_num_threads()
    name = device
    if size > 1 and device in (None, "cuda") and torch.cuda.is_available():
        name = f"cuda:{os.environ.get('LOCAL_RANK', rank)}"
    with open_device(name or (None if size == 1 else "cpu"), 1) as chosen:
        torch_device = chosen.torch_device
    torch.set_num_threads(threads)
    if size > 1 and torch_device.type == "cuda":
        torch.cuda.set_device(torch_device)
    with joined("nccl" if torch_device.type == "cuda" else "gloo") as peers:
        yield ProcessGroup(peers.rank, peers.size, torch_device)
