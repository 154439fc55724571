"""Dimensions of the towers of a model as other rooms read them, whatever its family."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Encoder:
    """Transformer, or single matrix, that turns an image or a sound into embeddings for the text model.

    Attributes:
        hidden_size: Numbers of a patch or frame.
        intermediate_size: Width of the feed-forward parts.
        num_hidden_layers: Layers; 0 for a single matrix.
        num_attention_heads: Attention heads.
        patches: Patches of the largest image, or frames of the longest sound.
        tokens: Tokens of the context that they become.
        inputs: Numbers of a patch or frame before anything is computed from them.
        channels: Channels of the convolutions that frames go through first, each of which halves their number.
        most_tokens: Tokens of the largest image that a runtime may ask for; 0 where all images have one size.
    """

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    patches: int
    tokens: int
    inputs: int = 0
    channels: tuple[int, ...] = ()
    most_tokens: int = 0


class TowersConfig(Protocol):
    """Dimensions of a model's towers; each family has a class of its own."""

    def __hash__(self) -> int:
        """Hash of a value that never changes."""

    @property
    def sees(self) -> Encoder | None:
        """Encoder of images, None for a model without."""

    @property
    def hears(self) -> Encoder | None:
        """Encoder of sound, None for a model without."""


def senses(towers: TowersConfig) -> str:
    """What towers are for: `images`, `sound`, or both."""
    kinds = (("images", towers.sees), ("sound", towers.hears))
    return " and ".join(word for word, encoder in kinds if encoder is not None)
