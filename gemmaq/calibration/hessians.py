"""Hessians X^T X of inputs X, summed in the order of the text, whatever the number of processes.

Inputs are added a gathered part after the other. With several processes each has a run of these parts: the sum travels
through them in the order of the text, a few panels of rows at a time, so that all are at work. Every number is added
where and when one process alone would add it, so the bits are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from gemmaq.calibration import GATHERED, PANEL
from gemmaq.calibration.activations import Inputs, gather, together
from gemmaq.inference.peers import Peers

if TYPE_CHECKING:
    import torch

    from gemmaq.inference.batch import Batch
    from gemmaq.inference.decoder import Decoder
    from gemmaq.inference.device import Device

_TRAVELLING = 8
"""Panels of a Hessian that go to the next process together."""


def unit(decoder: Decoder, length: int) -> int:
    """Sequences of this length that stay together in one process: those whose inputs are added together."""
    batch = decoder.device.batch
    return batch * max(1, GATHERED // (batch * length))


def add_products(hessian: torch.Tensor, inputs: torch.Tensor, device: Device) -> None:
    """Add X^T X of inputs X, f32 [tokens, columns], to the upper triangle of a Hessian, f32 [columns, columns]."""
    device.map(lambda at: _add(hessian, at, [inputs]), range(0, len(hessian), PANEL))


def _add(hessian: torch.Tensor, at: int, parts: Sequence[torch.Tensor]) -> None:
    """Add the products of parts of the inputs to a panel of a Hessian, one part after the other."""
    for inputs in parts:
        hessian[at : at + PANEL, at:].addmm_(inputs[:, at : at + PANEL].T, inputs[:, at:])


def chained(parts: Sequence[torch.Tensor], columns: int, *, device: Device, peers: Peers) -> torch.Tensor | None:
    """The Hessian of inputs of all processes, in the last process; all of them must call this.

    Args:
        parts: this process's inputs, f32 [tokens, columns] each, in the order of the text.
        columns: number of columns.
        device: to compute on.
        peers: the processes, in the order of the text.

    Returns:
        f32 [columns, columns], its upper triangle only; None in all processes but the last.
    """
    import torch

    hessian = torch.zeros(columns, columns, device=device.torch_device)
    starts, sent = range(0, columns, PANEL), list[Callable[[], None]]()
    for first in range(0, len(starts), _TRAVELLING):
        panels = starts[first : first + _TRAVELLING]
        if peers.rank:
            for at in panels:
                before = torch.empty_like(hessian[at : at + PANEL, at:], memory_format=torch.contiguous_format)
                peers.receive_tensor(before, peers.rank - 1)
                hessian[at : at + PANEL, at:] = before
        device.map(lambda at: _add(hessian, at, parts), panels)
        if peers.rank < peers.last:
            sent += [peers.send_tensor(hessian[at : at + PANEL, at:].clone(), peers.rank + 1) for at in panels]
    for finished in sent:
        finished()
    return hessian if peers.rank == peers.last else None


def delivered(hessian: torch.Tensor | None, columns: int, owners: Sequence[int], peers: Peers) -> torch.Tensor | None:
    """A Hessian of the last process, in those that own it; all of them must call this.

    Args:
        hessian: f32 [columns, columns] in the last process.
        columns: number of columns.
        owners: numbers of the processes that need it.
        peers: the processes.

    Returns:
        The Hessian, None where it is not needed.
    """
    import torch

    if hessian is not None:
        finished = [peers.send_tensor(hessian, owner) for owner in owners if owner != peers.rank]
        for wait in finished:
            wait()
        return hessian if peers.rank in owners else None
    if peers.rank not in owners:
        return None
    hessian = torch.empty(columns, columns)
    peers.receive_tensor(hessian, peers.last)
    return hessian


def of_layer(
    decoder: Decoder,
    module: torch.nn.Module,
    index: int,
    batches: Sequence[Batch],
    *,
    columns: dict[str, int | None],
    peers: Peers,
) -> tuple[dict[str, torch.Tensor], dict[str, Inputs], list[torch.Tensor]]:
    """What the inputs X of some sites of a layer say.

    Args:
        decoder: the model.
        module: the layer.
        index: its number.
        batches: this process's activations before it.
        columns: site -> number of columns of its inputs; None for the inputs of experts.
        peers: the processes.

    Returns:
        X^T X of every site, f32 [columns, columns], upper triangles only, in the last process; the inputs of experts of
        all processes; this process's activations after the layer.

    Raises:
        InputError: activations are not finite.
    """
    import torch

    device = decoder.device
    hessians: dict[str, torch.Tensor] = {}
    parts: dict[str, list[torch.Tensor]] = {site: [] for site, width in columns.items() if width is not None}
    routed: dict[str, list[Inputs]] = {site: [] for site, width in columns.items() if width is None}

    def take(site: str, inputs: Inputs) -> None:
        if site in routed:
            routed[site].append(inputs)
        elif site in parts and peers.size > 1:
            parts[site].append(inputs.values)
        elif site in parts:
            width = inputs.values.shape[1]
            if site not in hessians:
                hessians[site] = torch.zeros(width, width, device=device.torch_device)
            add_products(hessians[site], inputs.values, device)

    after = gather(decoder, index, batches, module=module, take=take)
    if peers.size > 1:
        for site, width in columns.items():
            whole = None if width is None else chained(parts.pop(site), width, device=device, peers=peers)
            if whole is not None:
                hessians[site] = whole
        everyone = peers.gather_all({site: together(some) for site, some in routed.items() if some}) if routed else []
        routed = {site: [inputs[site] for inputs in everyone if site in inputs] for site in routed}
    return hessians, {site: together(some) for site, some in routed.items()}, after
