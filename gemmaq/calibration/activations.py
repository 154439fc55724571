"""Inputs of the matrices of a layer, gathered while activations pass through it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gemmaq.calibration import GATHERED, PANEL
from gemmaq.checkpoint import Checkpoint, Tensor
from gemmaq.models.roles import Role

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from gemmaq.inference.batch import Batch
    from gemmaq.inference.decoder import Decoder


@dataclass(frozen=True, slots=True)
class Inputs:
    """Inputs of some matrices of a layer.

    Attributes:
        values: f32 [tokens, columns], in the order of the text.
        chosen: numbers of the experts that get each token, i64 [tokens, experts of a token]; None at a site of
            matrices that get every token.
    """

    values: torch.Tensor
    chosen: torch.Tensor | None = None

    def of_expert(self, expert: int) -> torch.Tensor:
        """Inputs that are routed to an expert, f32 [tokens, columns]."""
        assert self.chosen is not None
        return self.values[(self.chosen == expert).any(1)]

    def counts(self, experts: int) -> NDArray[np.int64]:
        """Number of inputs of every expert, i64 [experts]."""
        assert self.chosen is not None
        return np.bincount(self.chosen.flatten().cpu().numpy(), minlength=experts)


Take = Callable[[str, Inputs], None]
"""Called with an input site and its inputs, always in the same order."""


def stacks(checkpoint: Checkpoint, index: int) -> dict[str, Tensor]:
    """The stacks of experts of a layer by their part; all are in one module, which is their input site."""
    parts = checkpoint.layer(index)
    return {part: tensor for part, tensor in parts.items() if tensor.place.role is Role.EXPERTS}


def sites(checkpoint: Checkpoint, index: int) -> dict[str, tuple[str, ...]]:
    """Parts of a layer that share an input by their input site: the module whose input they share."""
    found = dict(checkpoint.family.names.input_sites(checkpoint.config, index))
    experts = tuple(stacks(checkpoint, index))
    return found | ({experts[0].rpartition(".")[0]: experts} if experts else {})


def gather(
    decoder: Decoder, index: int, batches: Sequence[Batch], *, module: torch.nn.Module, take: Take
) -> list[torch.Tensor]:
    """Send activations through a layer and pass on the inputs of its matrices.

    Args:
        decoder: the model.
        index: number of the layer.
        batches: activations before the layer; they stay as they are.
        module: the layer.
        take: called with all inputs.

    Returns:
        The activations after the layer, f32 [batch, length, hidden] each.

    Raises:
        InputError: activations after the layer are not finite.
    """
    watched = sites(decoder.checkpoint, index)
    local = threading.local()

    def hook(site: str) -> Callable[[Any, Any], None]:
        return lambda _, inputs: local.inputs.__setitem__(site, inputs[:2])  # experts are called with their choice, too

    def run(batch: Batch) -> tuple[torch.Tensor, dict[str, tuple[torch.Tensor, ...]]]:
        local.inputs = {}
        return decoder.checked(index, decoder.forward(module, index, batch)), dict(local.inputs)

    after: list[torch.Tensor] = []
    step = max(1, GATHERED // batches[0].tokens) if batches else 1
    hooks = [module.get_submodule(site).register_forward_pre_hook(hook(site)) for site in watched]
    try:
        for at in range(0, len(batches), step):
            parts = decoder.device.map(run, batches[at : at + step])
            after += [out for out, _ in parts]
            for site in watched:
                take(site, together([Inputs(*map(_rows, inputs.pop(site))) for _, inputs in parts]))
    finally:
        for handle in hooks:
            handle.remove()
    return after


def _rows(inputs: torch.Tensor) -> torch.Tensor:
    """What a module was called with, a row for every token."""
    return inputs.reshape(-1, inputs.shape[-1])


def together(parts: Sequence[Inputs]) -> Inputs:
    """Inputs of some tokens and of those that follow them as one."""
    import torch

    chosen = [part.chosen for part in parts if part.chosen is not None]
    return Inputs(torch.cat([part.values for part in parts]), torch.cat(chosen) if chosen else None)


def mirror(hessian: torch.Tensor) -> torch.Tensor:
    """Copy the upper triangle of a square matrix to its lower triangle, in place."""
    for at in range(0, len(hessian), PANEL):
        end = at + PANEL
        hessian[end:, at:end] = hessian[at:end, end:].T
        block = hessian[at:end, at:end]
        block.copy_(block.triu() + block.triu(1).T)
    return hessian
