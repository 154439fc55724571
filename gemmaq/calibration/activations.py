"""What the matrices of a layer are multiplied with: gathered on the way through it."""

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
"""Called with a site and inputs f32 [tokens, columns], always in the same order."""


def gather(
    decoder: Decoder, module: torch.nn.Module, index: int, hidden: Sequence[torch.Tensor], take: Take
) -> list[torch.Tensor]:
    """Send activations through a layer and show what its matrices get.

    Args:
        decoder: of the model.
        module: the layer.
        index: its number.
        hidden: f32 [batch, length, hidden] each.
        take: is shown every input.

    Returns:
        The activations after the layer; those before it stay as they are.

    Raises:
        InputError: they are not finite.
    """
    import torch

    sites = decoder.checkpoint.family.names.INPUT_SITES
    here = threading.local()

    def hook(site: str) -> Callable[[Any, Any], None]:
        return lambda _, inputs: here.found.__setitem__(site, inputs[0].reshape(-1, inputs[0].shape[-1]))

    def run(batch: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        here.found = {}
        return decoder.checked(index, decoder.forward(module, index, batch)), dict(here.found)

    after: list[torch.Tensor] = []
    step = max(1, GATHERED // (hidden[0].shape[0] * hidden[0].shape[1]))
    hooks = [module.get_submodule(site).register_forward_pre_hook(hook(site)) for site in sites]
    try:
        for at in range(0, len(hidden), step):
            parts = decoder.device.map(run, hidden[at : at + step])
            after += [out for out, _ in parts]
            for site in sites:
                take(site, torch.cat([found.pop(site) for _, found in parts]))
    finally:
        for handle in hooks:
            handle.remove()
    return after


def add_products(hessian: torch.Tensor, inputs: torch.Tensor, decoder: Decoder) -> None:
    """Add X^T X of inputs X, f32 [tokens, columns], to the upper triangle of f32 [columns, columns]."""

    def run(at: int) -> None:
        hessian[at : at + _PANEL, at:].addmm_(inputs[:, at : at + _PANEL].T, inputs[:, at:])

    decoder.device.map(run, range(0, len(hessian), _PANEL))


def mirrored(hessian: torch.Tensor) -> torch.Tensor:
    """The whole of a symmetric matrix of which the upper triangle is there; in place."""
    for at in range(0, len(hessian), _PANEL):
        end = at + _PANEL
        hessian[end:, at:end] = hessian[at:end, end:].T
        block = hessian[at:end, at:end]
        block.copy_(block.triu() + block.triu(1).T)
    return hessian
