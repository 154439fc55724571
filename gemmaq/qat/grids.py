"""The grids that weights are trained for: the values that a matrix has once it is stored.

Each grid is written twice, as a compiled loop for the CPU and in torch operations for any other device; both give the
same bits as the converter.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from gemmaq.errors import unknown

if TYPE_CHECKING:
    import torch

    from gemmaq.encodings import F32

BLOCK = 32
_SLAB = 1 << 18


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """A grid of int4 weights.

    Attributes:
        name: name in options and records.
        description: description for the record.
        block: weights that share a scale, None for one scale per row.
        compiled: loop for the CPU: weights f32 [rows, columns] -> values on the grid, written to the second array.
        torch: torch operations for other devices: weights -> values on the grid.
        finish: values on the grid -> values to store, None to store them as they are.
        encoding: name of the encoding whose codes and scales a student can begin with, None if there is none.
    """

    name: str
    description: str
    block: int | None
    compiled: Callable[[F32, F32], None]
    torch: Callable[[torch.Tensor], torch.Tensor]
    finish: Callable[[F32], F32] | None = None
    encoding: str | None = None


def find(name: str) -> Grid:
    """Look up a grid by name.

    Raises:
        UsageError: the name is unknown.
    """
    if name not in GRIDS:
        raise unknown("grid", name, GRIDS, meant={"int4": "q4_0"})
    return GRIDS[name]


def values(grid: Grid, weights: torch.Tensor, scales: torch.Tensor | None = None) -> torch.Tensor:
    """Round weights to a grid, f32 [rows, columns] -> f32 [rows, columns].

    Args:
        grid: grid to round to.
        weights: weights to round.
        scales: fixed scales of blocks of 32, f32 [rows, blocks]; None to derive them by the grid's rule.
    """
    import torch

    if weights.device.type != "cpu":
        return grid.torch(weights) if scales is None else _fixed_torch(weights, scales)
    contiguous = weights.detach().contiguous()
    out = torch.empty_like(contiguous)
    x, y = _array(contiguous), out.numpy()
    step = max(1, _SLAB // x.shape[1])
    slabs = range(0, len(x), step)
    z = None if scales is None else scales.numpy()

    def work(first: int) -> None:
        part = slice(first, first + step)
        if z is None:
            grid.compiled(x[part], y[part])
        else:
            _fixed_compiled(x[part], z[part], y[part])

    workers = torch.get_num_threads()
    if workers == 1 or len(slabs) == 1:
        for first in slabs:
            work(first)
    else:
        list(_pool(workers).map(work, slabs))
    return out


def _array(tensor: torch.Tensor) -> F32:
    """A tensor's memory as an array; `tensor.numpy()` would keep FSDP from freeing it afterwards."""
    import ctypes

    memory = (ctypes.c_float * tensor.numel()).from_address(tensor.data_ptr())
    return np.ctypeslib.as_array(memory).reshape(tuple(tensor.shape))


@cache
def _pool(workers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers)


def _fixed_compiled(x: F32, scales: F32, out: F32) -> None:
    from gemmaq.qat.kernels import values_on

    values_on(x.reshape(-1, BLOCK), scales.reshape(-1), out.reshape(-1, BLOCK))


def _fixed_torch(weights: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    import torch

    d = scales.reshape(-1, 1)
    codes = (torch.round(weights.reshape(-1, BLOCK) * _inverses(d)) + 8).clamp(0, 15)
    return (d * (codes - 8)).reshape(weights.shape)


def _q4_0_compiled(x: F32, out: F32) -> None:
    from gemmaq.qat.kernels import values_q4_0

    values_q4_0(x.reshape(-1, BLOCK), out.reshape(-1, BLOCK))


def _portable(scales: torch.Tensor) -> torch.Tensor:
    """Round scales to the nearest number that both BF16 and FP16 hold; one too large for FP16 stays as it is."""
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


def pegged(values: F32) -> F32:
    """Q4_0 values in which every block's extreme has the code -8, so that a converter derives the same scale again.

    In FP16's subnormal range rounding a scale may move the extreme's code away from -8. Such a block is rounded to the
    scale that the converter will derive, its extreme at -8; weights that small make no difference.

    Args:
        values: values on the grid, f32; not changed.
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
    """The values to store for a trained tensor: a matrix on its grid, a vector unchanged."""
    latent = latent.float().cpu()
    if latent.ndim < 2:
        return latent.numpy()
    on_grid: F32 = values(grid, latent, None if scales is None else scales.cpu()).numpy()
    return grid.finish(on_grid) if grid.finish and scales is None else on_grid


GRIDS = {
    grid.name: grid
    for grid in (
        Grid(
            name="q4_0",
            description="Q4_0 with scales that BF16 and FP16 both hold: blocks of 32, scale = signed extremum / -8",
            block=BLOCK,
            compiled=_q4_0_compiled,
            torch=_q4_0_torch,
            finish=pegged,
            encoding="q4_0",
        ),
        Grid(
            name="int4-channel",
            description="int4 per channel: a scale a row, largest magnitude / 7, codes -7 to 7",
            block=None,
            compiled=_channel_compiled,
            torch=_channel_torch,
        ),
    )
}
