"""One process, or several under torchrun that share model and batch: FSDP2, gloo on CPUs and nccl on GPUs."""

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
class Ranks:
    """Who takes part.

    Attributes:
        rank: of this process.
        count: of all.
        device: this one computes on.
    """

    rank: int
    count: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process writes and speaks."""
        return self.rank == 0

    def share(self, batch: Tokens) -> torch.Tensor:
        """This process's part of a batch, on its device."""
        import torch

        return torch.from_numpy(np.array_split(batch, self.count)[self.rank]).to(self.device)

    def total(self, *values: float) -> list[float]:
        """Sums over all processes."""
        import torch
        from torch import distributed

        if self.count == 1:
            return list(values)
        sums = torch.tensor(values, dtype=torch.float64, device=self.device)
        distributed.all_reduce(sums)
        return sums.tolist()

    def agree(self, flag: bool) -> bool:
        """Whether any process says so."""
        return self.total(float(flag))[0] > 0

    def wait(self) -> None:
        """Until all are here."""
        self.total(0.0)

    def shard(self, network: nn.Module) -> None:
        """Spread the parameters of a network over all processes, layer by layer."""
        if self.count == 1:
            return
        from torch.distributed.fsdp import fully_shard

        for layer in network.get_submodule("layers").children():
            fully_shard(layer)
        fully_shard(network)


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """All of a tensor that may be spread, f32 on the CPU; every process must ask."""
    found: Any = tensor.detach()
    if hasattr(found, "full_tensor"):
        found = found.full_tensor()
    gathered: torch.Tensor = found.float().cpu()
    return gathered


def put(target: torch.Tensor, values: torch.Tensor) -> None:
    """Set a tensor that may be spread; every process has the values."""
    import torch

    with torch.no_grad():
        found: Any = target
        if hasattr(found, "device_mesh"):
            from torch.distributed.tensor import distribute_tensor

            spread = distribute_tensor(values.to(found.device), found.device_mesh, found.placements, src_data_rank=None)
            found.to_local().copy_(spread.to_local())
        else:
            found.copy_(values)


@contextmanager
def ranks(device: str | None, batch: int) -> Iterator[Ranks]:
    """Join the others, if torchrun started this process.

    Raises:
        UsageError: there is no such device, or the batch does not divide.
    """
    import torch
    from torch import distributed

    from gemmaq.inference.device import open_device

    count, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    if batch % count:
        raise UsageError(f"a batch of {batch} sequences does not divide among {count} processes", "--batch")
    threads = torch.get_num_threads()
    name = device
    if count > 1 and device in (None, "cuda") and torch.cuda.is_available():
        name = f"cuda:{os.environ.get('LOCAL_RANK', rank)}"
    with open_device(name or (None if count == 1 else "cpu"), 1) as found:
        place = found.torch_device
    torch.set_num_threads(threads)
    if count == 1:
        yield Ranks(0, 1, place)
        return
    if place.type == "cuda":
        torch.cuda.set_device(place)
    distributed.init_process_group("nccl" if place.type == "cuda" else "gloo")
    try:
        yield Ranks(rank, count, place)
    finally:
        distributed.destroy_process_group()
