"""Sequences on their way through the layers of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gemmaq.models.config import TextConfig

if TYPE_CHECKING:
    import torch


@dataclass(slots=True)
class Batch:
    """Sequences of one length, without padding.

    Attributes:
        hidden: Input of the next layer, f32 [batch, length, hidden].
        places: Row of every token in `inputs`, i64 [batch, length].
        inputs: What layers take besides, a row for every distinct token of the text, f32 [tokens, layers, width]; None
            in a model whose layers take nothing else.
        shared: What earlier layers keep for later ones (keys and values), by name: tensors [batch, ...].
    """

    hidden: torch.Tensor
    places: torch.Tensor
    inputs: torch.Tensor | None = None
    shared: Mapping[str, tuple[torch.Tensor, ...]] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        return self.places.numel()

    def layer_input(self, index: int) -> torch.Tensor | None:
        """What a layer takes besides its input, f32 [batch, length, width]; None if it takes nothing else."""
        return None if self.inputs is None else self.inputs[self.places, index]

    def split(self) -> list[Batch]:
        """Every sequence as a batch of its own."""
        return [
            Batch(
                self.hidden[at : at + 1],
                self.places[at : at + 1],
                self.inputs,
                {name: tuple(part[at : at + 1] for part in parts) for name, parts in self.shared.items()},
            )
            for at in range(len(self.places))
        ]


def held(config: TextConfig, tokens: int) -> int:
    """Numbers that batches hold besides hidden states, at most: layers' inputs, and the keys and values they share."""
    sources = {layer.kv_from for layer in config.layers if layer.kv_from is not None}
    shared = sum(2 * config.layers[at].kv_width for at in sources)
    return tokens * shared + min(tokens, config.vocab_size) * config.num_hidden_layers * config.layer_embedding


def joined(batches: Sequence[Batch]) -> Batch:
    """Several batches of one text as one."""
    import torch

    first = batches[0]
    shared = {
        name: tuple(torch.cat(parts) for parts in zip(*(batch.shared[name] for batch in batches), strict=True))
        for name in first.shared
    }
    hidden, places = (torch.cat(parts) for parts in zip(*((b.hidden, b.places) for b in batches), strict=True))
    return Batch(hidden, places, first.inputs, shared)
