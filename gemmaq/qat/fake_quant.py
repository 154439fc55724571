"""Fake quantization: the forward pass rounds, the backward pass is a straight-through estimator."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from gemmaq.qat import grids
from gemmaq.qat.grids import BLOCK, Grid

if TYPE_CHECKING:
    import torch


def weights(latent: torch.Tensor, grid: Grid, dtype: torch.dtype, scales: torch.Tensor | None = None) -> torch.Tensor:
    """Round a latent matrix to its grid.

    Args:
        latent: latent weights, f32 [rows, columns].
        grid: grid to round to.
        dtype: dtype of the result; the grid's values are exact in float32 and rounded otherwise.
        scales: fixed scales of blocks, None to derive them by the grid's rule.
    """
    rounded: torch.Tensor = _weights().apply(latent, grid, dtype, scales)
    return rounded


def activations(x: torch.Tensor) -> torch.Tensor:
    """Round the inputs of a matrix as llama.cpp's kernels do: blocks of 32 in eight bits.

    The scale is the largest magnitude / 127 and kept in FP16, codes are rounded half away from zero; source:
    ggml-quants.c, quantize_row_q8_0_ref.

    Args:
        x: [..., columns], columns a multiple of 32.

    Returns:
        f32.
    """
    rounded: torch.Tensor = _activations().apply(x)
    return rounded


def q8_0(x: torch.Tensor) -> torch.Tensor:
    """Round to Q8_0, f32 [..., columns] -> f32, without a straight-through estimator."""
    import torch

    blocks = x.float().reshape(-1, BLOCK)
    scales = blocks.abs().amax(dim=1, keepdim=True) / 127
    inverses = 1 / scales
    scaled = blocks * torch.where(inverses.isinf(), torch.zeros_like(inverses), inverses)
    whole = torch.trunc(scaled)
    whole = whole + torch.where((scaled - whole).abs() >= 0.5, torch.sign(scaled), torch.zeros_like(scaled))
    return (whole * scales.to(torch.float16).float()).reshape(x.shape)


@cache
def _weights() -> Any:
    """The autograd function of weights; it is created once torch is imported."""
    import torch

    class FakeQuantize(torch.autograd.Function):
        @staticmethod
        def forward(
            ctx: Any, latent: torch.Tensor, grid: Grid, dtype: torch.dtype, scales: torch.Tensor | None
        ) -> torch.Tensor:
            return grids.values(grid, latent, scales).to(dtype)

        @staticmethod
        def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
            return gradients[0].float(), None, None, None

    return FakeQuantize


@cache
def _activations() -> Any:
    """The autograd function of activations."""
    import torch

    class FakeActivations(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            ctx.dtype = x.dtype
            return q8_0(x)

        @staticmethod
        def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
            return gradients[0].to(ctx.dtype)

    return FakeActivations
