"""Quantization as training sees it: forward, the weights that will be stored; backward, straight through."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gemmaq.qat import grids
from gemmaq.qat.grids import BLOCK, Grid

if TYPE_CHECKING:
    import torch


def weights(latent: torch.Tensor, grid: Grid, dtype: torch.dtype, scales: torch.Tensor | None = None) -> torch.Tensor:
    """The weights that a latent matrix stands for.

    Args:
        latent: f32 [rows, columns].
        grid: they are to lie on.
        dtype: to multiply in; the grid's values are exact in float32 and rounded otherwise.
        scales: of blocks, where they are given.
    """
    found: torch.Tensor = _weights().apply(latent, grid, dtype, scales)
    return found


def activations(x: torch.Tensor) -> torch.Tensor:
    """Inputs of a matrix as llama.cpp's kernels round them: blocks of 32 in eight bits.

    The scale is the largest magnitude / 127 and kept in FP16, codes are rounded half away from zero; source:
    ggml-quants.c, quantize_row_q8_0_ref.

    Args:
        x: [..., columns], columns a multiple of 32.

    Returns:
        f32.
    """
    found: torch.Tensor = _activations().apply(x)
    return found


def q8_0(x: torch.Tensor) -> torch.Tensor:
    """The rounding itself, f32 [..., columns] -> f32."""
    import torch

    blocks = x.float().reshape(-1, BLOCK)
    scales = blocks.abs().amax(dim=1, keepdim=True) / 127
    inverses = 1 / scales
    scaled = blocks * torch.where(inverses.isinf(), torch.zeros_like(inverses), inverses)
    whole = torch.trunc(scaled)
    whole = whole + torch.where((scaled - whole).abs() >= 0.5, torch.sign(scaled), torch.zeros_like(scaled))
    return (whole * scales.to(torch.float16).float()).reshape(x.shape)


def _weights() -> Any:
    """The class, made when torch is there."""
    if "weights" not in _MADE:
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

        _MADE["weights"] = FakeQuantize
    return _MADE["weights"]


def _activations() -> Any:
    if "activations" not in _MADE:
        import torch

        class FakeActivations(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
                ctx.dtype = x.dtype
                return q8_0(x)

            @staticmethod
            def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
                return gradients[0].to(ctx.dtype)

        _MADE["activations"] = FakeActivations
    return _MADE["activations"]


_MADE: dict[str, Any] = {}
