"""Sums of the squared inputs of every matrix of the layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from gemmaq.calibration.activations import Inputs, gather, sites, stacks
from gemmaq.calibration.hessians import unit
from gemmaq.calibration.resume import Kept, read_sums, write_sums
from gemmaq.inference.peers import ALONE, Peers
from gemmaq.progress import Progress, ProgressCallback

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from gemmaq.inference.decoder import Decoder
    from gemmaq.inference.documents import Tokens

Squares = tuple["NDArray[np.float64]", "NDArray[np.int64]"]
"""Sum of the squared inputs of every column of some matrices, f64 [matrices, columns], and the numbers of inputs."""


def squares(
    decoder: Decoder, tokens: Tokens, progress: ProgressCallback, peers: Peers = ALONE, kept: Kept | None = None
) -> Mapping[str, Squares]:
    """Send sequences through the model and add up the squared inputs of its matrices, in the order of the text.

    Args:
        decoder: the model.
        tokens: i64 [sequences, length].
        progress: called after every layer.
        peers: the processes that share the sequences.
        kept: keeps the sums of every layer, and gives those of layers that are done; None for none.

    Returns:
        Canonical name -> sums and numbers of inputs; a stack of experts has those of every expert. In processes other
        than the main one, nothing.

    Raises:
        InputError: activations are not finite.
    """
    checkpoint = decoder.checkpoint
    share = peers.share(len(tokens), unit(decoder, tokens.shape[1]))
    batches, first, done = decoder.embed(tokens, share), share.start // decoder.device.batch, 0
    names, found = checkpoint.family.names, dict[str, Squares]()
    if kept is not None:
        done, _ = kept.begin()
        for path in sorted(kept.files.iterdir()) if peers.main else ():
            found |= read_sums(path)
        if done:
            kept.restore(done, batches, first)
    for index in range(done, decoder.layers):
        layer = _Layer(decoder, decoder.layer(index), index)
        after = gather(decoder, index, batches, module=layer.module, take=layer.add)
        for batch, hidden in zip(batches, after, strict=True):
            batch.hidden = hidden
        sums = layer.chained(peers)
        if peers.main:
            found |= {
                names.in_layer(index, part): sums[part] for parts in sites(checkpoint, index).values() for part in parts
            }
        if kept is not None:
            if peers.main:
                of_layer = {name: found[name] for name in (names.in_layer(index, part) for part in sums)}
                write_sums(kept.files / f"{index:04}.npz", of_layer)
            kept.close(index + 1, batches, first, {})
        progress(Progress("gathering statistics", index + 1, decoder.layers, "layers"))
    return found


class _Layer:
    """Sums of one layer.

    Attributes:
        added: parts with the same inputs, and the sums and numbers of some inputs of theirs, in the order of the text.
    """

    def __init__(self, decoder: Decoder, module: torch.nn.Module, index: int) -> None:
        self.decoder, self.module = decoder, module
        self.stacks, self.sites = stacks(decoder.checkpoint, index), sites(decoder.checkpoint, index)
        self.added: list[tuple[tuple[str, ...], Squares]] = []

    def add(self, site: str, inputs: Inputs) -> None:
        """Add the inputs of a site."""
        if inputs.chosen is None:
            added = inputs.values.double().square().sum(0).cpu().numpy()
            self._add(self.sites[site], added[None], np.array([len(inputs.values)]))
            return
        module, modules = self.module.get_submodule(site), self.decoder.checkpoint.family.modules
        count = self.stacks[self.sites[site][0]].shape[0]

        def of_expert(expert: int) -> dict[str, NDArray[np.float64]]:
            parts = modules.expert_inputs(module, expert, inputs.of_expert(expert))
            return {part: values.double().square().sum(0).cpu().numpy() for part, values in parts.items()}

        each = self.decoder.device.map(of_expert, range(count))
        for part in self.sites[site]:
            self._add((part,), np.stack([sums[part] for sums in each]), inputs.counts(count))

    def chained(self, peers: Peers) -> dict[str, Squares]:
        """Part -> sums and numbers of the inputs of all processes, in the main one; what others had comes before."""
        sums: dict[str, Squares] = peers.receive(peers.rank - 1) if peers.rank else {}
        for parts, (more, count) in self.added:
            before = sums.get(parts[0], (0.0, 0))
            sums |= dict.fromkeys(parts, (before[0] + more, before[1] + count))
        if peers.size > 1:
            peers.send(sums, (peers.rank + 1) % peers.size)
        return peers.receive(peers.last) if peers.main and peers.size > 1 else sums

    def _add(self, parts: tuple[str, ...], sums: NDArray[np.float64], counts: NDArray[np.int64]) -> None:
        self.added.append((parts, (sums, counts)))
