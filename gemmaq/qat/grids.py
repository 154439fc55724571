"""The grids that weights are trained for: what a matrix becomes when it is stored, as values.

Each grid is written twice, as a compiled loop for the CPU and in torch's operations for any other device; both give
the same bits, and those of the converter.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from gemmaq.errors import UsageError

if TYPE_CHECKING:
    import torch

    from gemmaq.encodings import F32

BLOCK = 32
_SLAB = 1 << 18


@dataclass(frozen=True, slots=True)
class Grid:
    """What weights may be.

    Attributes:
        name: as users say it.
        says: what it is, for the record.
        block: weights that share a scale, None for a whole row.
        compiled: f32 [rows, columns] -> its values, f32, in the second array.
        torch: the same on tensors.
    """

    name: str
    says: str
    block: int | None
    compiled: Callable[[F32, F32], None]
    torch: Callable[[torch.Tensor], torch.Tensor]


def find(name: str) -> Grid:
    """The grid of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in GRIDS:
        raise UsageError(f"unknown grid {name!r}", f"known grids: {', '.join(GRIDS)}")
    return GRIDS[name]


def values(grid: Grid, weights: torch.Tensor, scales: torch.Tensor | None = None) -> torch.Tensor:
    """What weights, f32 [rows, columns], become when they are stored on a grid; f32.

    Args:
        grid: see there.
        weights: to be stored.
        scales: of blocks of 32, f32 [rows, blocks], where they do not follow the grid's rule but are given.
    """
    import torch

    if weights.device.type != "cpu":
        return grid.torch(weights) if scales is None else _given_torch(weights, scales)
    given = weights.detach().contiguous()
    out = torch.empty_like(given)
    x, y = _seen(given), out.numpy()
    step = max(1, _SLAB // x.shape[1])
    slabs = range(0, len(x), step)
    z = None if scales is None else scales.numpy()

    def work(first: int) -> None:
        part = slice(first, first + step)
        if z is None:
            grid.compiled(x[part], y[part])
        else:
            _given_compiled(x[part], z[part], y[part])

    workers = torch.get_num_threads()
    if workers == 1 or len(slabs) == 1:
        for first in slabs:
            work(first)
    else:
        list(_pool(workers).map(work, slabs))
    return out


def _seen(tensor: torch.Tensor) -> F32:
    """The memory of a tensor as an array; `numpy()` would keep FSDP from freeing it afterwards."""
    import ctypes

    memory = (ctypes.c_float * tensor.numel()).from_address(tensor.data_ptr())
    return np.ctypeslib.as_array(memory).reshape(tuple(tensor.shape))


@cache
def _pool(workers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers)


def _given_compiled(x: F32, scales: F32, out: F32) -> None:
    from gemmaq.qat.kernels import values_on

    values_on(x.reshape(-1, BLOCK), scales.reshape(-1), out.reshape(-1, BLOCK))


def _given_torch(weights: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    import torch

    d = scales.reshape(-1, 1)
    codes = (torch.round(weights.reshape(-1, BLOCK) * _inverses(d)) + 8).clamp(0, 15)
    return (d * (codes - 8)).reshape(weights.shape)


def _q4_0_compiled(x: F32, out: F32) -> None:
    from gemmaq.qat.kernels import values_q4_0

    values_q4_0(x.reshape(-1, BLOCK), out.reshape(-1, BLOCK))


def _portable(scales: torch.Tensor) -> torch.Tensor:
    """The nearest scales that BF16 and FP16 both hold; too large for FP16 stays as it is."""
    import torch

    halves = scales.to(torch.bfloat16).to(torch.float16).float()
    return torch.where(halves.isfinite(), halves, scales)


def _inverses(scales: torch.Tensor) -> torch.Tensor:
    import torch

    inverses = 1 / scales
    return torch.where(inverses.isinf(), torch.zeros_like(inverses), inverses)


def _q4_0_torch(weights: torch.Tensor) -> torch.Tensor:
    import torch

    x = weights.reshape(-1, BLOCK)
    at = x.abs().argmax(dim=1, keepdim=True)  # the first of several
    d = x.gather(1, at) / -8
    scales = _portable(d)
    inverses = _inverses(scales)
    product = x * inverses
    bias = torch.where((inverses == 0) & (d != 0), 0.0, 8.5)
    kept = torch.trunc(product + bias).clamp(max=15) - 8
    chosen = (torch.round(product) + 8).clamp(0, 15) - 8
    return (scales * torch.where(scales == d, kept, chosen)).reshape(weights.shape)


def _channel_compiled(x: F32, out: F32) -> None:
    from gemmaq.encodings.rounding import portable

    scales = portable(np.abs(x).max(axis=1, keepdims=True) / np.float32(7))
    with np.errstate(divide="ignore"):
        inverses = np.float32(1) / scales
    inverses[np.isinf(inverses)] = 0
    np.multiply(x, inverses, out=out)
    np.rint(out, out=out)
    np.clip(out, -7, 7, out=out)
    np.multiply(out, scales, out=out)


def _channel_torch(weights: torch.Tensor) -> torch.Tensor:
    import torch

    scales = _portable(weights.abs().amax(dim=1, keepdim=True) / 7)
    return torch.round(weights * _inverses(scales)).clamp(-7, 7) * scales


GRIDS = {
    "q4_0": Grid(
        "q4_0",
        "Q4_0 with scales that BF16 and FP16 both hold: blocks of 32, scale = signed extremum / -8",
        BLOCK,
        _q4_0_compiled,
        _q4_0_torch,
    ),
    "int4-channel": Grid(
        "int4-channel",
        "int4 per channel: a scale a row, largest magnitude / 7, codes -7 to 7",
        None,
        _channel_compiled,
        _channel_torch,
    ),
}


def pegged(values: F32) -> F32:
    """Q4_0 values whose block extremes all have the code -8, so that every reader finds the scale again.

    In FP16's subnormal range rounding a scale may move the code of the extreme weight away from -8. Such a block is put
    on the grid of the scale that readers will find, its extreme at -8; weights that small count for nothing.

    Args:
        values: f32, as `values` gives them; not changed.
    """
    from gemmaq.encodings.rounding import portable

    blocks = values.reshape(-1, BLOCK).copy()
    at = np.abs(blocks).argmax(axis=1)
    extremes = blocks[np.arange(len(blocks)), at]
    scales = portable(extremes / np.float32(-8))
    loose = np.flatnonzero(scales * np.float32(-8) != extremes)
    safe = np.where(scales[loose] == 0, np.float32(1), scales[loose])[:, None]
    codes = np.clip(np.rint(blocks[loose] / safe), -8, 7)
    codes[np.arange(len(loose)), at[loose]] = -8
    blocks[loose] = codes * scales[loose, None] + np.float32(0)
    return blocks.reshape(values.shape)


def stored(latent: torch.Tensor, grid: Grid, scales: torch.Tensor | None = None) -> F32:
    """What a trained tensor is stored as: a matrix on its grid, a vector as it is."""
    latent = latent.float().cpu()
    if latent.ndim < 2:
        return latent.numpy()
    found: F32 = values(grid, latent, None if scales is None else scales.cpu()).numpy()
    return pegged(found) if grid.name == "q4_0" and scales is None else found
