"""Inputs of the matrices of a layer, gathered while activations pass through it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from gemmaq.calibration import GATHERED

if TYPE_CHECKING:
    import torch

    from gemmaq.inference.decoder import Decoder

_PANEL = 512

Take = Callable[[str, "torch.Tensor"], None]
"""Called with an input site and its inputs, f32 [tokens, columns], always in the same order."""


def gather(
    decoder: Decoder, index: int, hidden: Sequence[torch.Tensor], *, module: torch.nn.Module, take: Take
) -> list[torch.Tensor]:
    """Send activations through a layer and pass on the inputs of its matrices.

    Args:
        decoder: the model.
        index: number of the layer.
        hidden: activations before the layer, f32 [batch, length, hidden] each; they stay as they are.
        module: the layer.
        take: called with all inputs.

    Returns:
        The activations after the layer.

    Raises:
        InputError: activations after the layer are not finite.
    """
    import torch

    sites = decoder.checkpoint.family.names.input_sites(decoder.checkpoint.config, index)
    local = threading.local()

    def hook(site: str) -> Callable[[Any, Any], None]:
        return lambda _, inputs: local.inputs.__setitem__(site, inputs[0].reshape(-1, inputs[0].shape[-1]))

    def run(batch: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        local.inputs = {}
        return decoder.checked(index, decoder.forward(module, index, batch)), dict(local.inputs)

    after: list[torch.Tensor] = []
    step = max(1, GATHERED // (hidden[0].shape[0] * hidden[0].shape[1]))
    hooks = [module.get_submodule(site).register_forward_pre_hook(hook(site)) for site in sites]
    try:
        for at in range(0, len(hidden), step):
            parts = decoder.device.map(run, hidden[at : at + step])
            after += [out for out, _ in parts]
            for site in sites:
                take(site, torch.cat([inputs.pop(site) for _, inputs in parts]))
    finally:
        for handle in hooks:
            handle.remove()
    return after


def add_products(hessian: torch.Tensor, inputs: torch.Tensor, decoder: Decoder) -> None:
    """Add X^T X of inputs X, f32 [tokens, columns], to the upper triangle of a Hessian, f32 [columns, columns]."""

    def run(at: int) -> None:
        hessian[at : at + _PANEL, at:].addmm_(inputs[:, at : at + _PANEL].T, inputs[:, at:])

    decoder.device.map(run, range(0, len(hessian), _PANEL))


def mirror(hessian: torch.Tensor) -> torch.Tensor:
    """Copy the upper triangle of a square matrix to its lower triangle, in place."""
    for at in range(0, len(hessian), _PANEL):
        end = at + _PANEL
        hessian[end:, at:end] = hessian[at:end, end:].T
        block = hessian[at:end, at:end]
        block.copy_(block.triu() + block.triu(1).T)
    return hessian
