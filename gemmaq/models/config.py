"""Dimensions of a text model as all rooms read them, whatever its family: per layer wherever layers may differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

OF_TARGET = -1
"""`Layer.kv_from` of a drafter: its layers attend to keys and values of the model that it proposes tokens for."""


@dataclass(frozen=True, slots=True)
class Experts:
    """Experts of a layer: feed-forward parts of which a router chooses a few for every token.

    Attributes:
        count: Number of experts.
        active: Experts that a token goes through.
        ffn: Width of an expert.
    """

    count: int
    active: int
    ffn: int


@dataclass(frozen=True, slots=True)
class Layer:
    """Dimensions of a decoder layer.

    Attributes:
        heads: Query heads.
        kv_heads: Key and value heads.
        head_dim: Numbers of a head.
        ffn: Width of the feed-forward part (`intermediate_size`).
        window: Tokens that attention looks back (sliding window), None for the whole context.
        kv_from: Index of the earlier layer whose keys and values it attends to, OF_TARGET for a layer of another
            model, None for its own: only a layer with its own has a KV cache.
        k_is_v: Whether the projection of keys also gives the values; the cache holds both all the same.
        experts: Experts beside the feed-forward part, None for none.
        sparse: Whether only the largest outputs of the gate are kept.
    """

    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    window: int | None
    kv_from: int | None = None
    k_is_v: bool = False
    experts: Experts | None = None
    sparse: bool = False

    @property
    def is_local(self) -> bool:
        """Whether attention has a sliding window."""
        return self.window is not None

    @property
    def query_width(self) -> int:
        """Numbers of all query heads of a token."""
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """Numbers of all key heads (or all value heads) of a token."""
        return self.kv_heads * self.head_dim


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotary position embedding of a model.

    Attributes:
        theta: Base of the global layers.
        local_theta: Base of the sliding-window layers.
        factor: Linear scaling of positions in the global layers, 1.0 for none.
    """

    theta: float
    local_theta: float
    factor: float


class TextConfig(Protocol):
    """Dimensions of a text model of any family, by the field names of transformers where it has them."""

    def __hash__(self) -> int:
        """Hash of a value that never changes."""

    @property
    def hidden_size(self) -> int:
        """Width of the residual stream."""

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding."""

    @property
    def num_hidden_layers(self) -> int:
        """Decoder layers."""

    @property
    def max_position_embeddings(self) -> int:
        """Longest context in tokens."""

    @property
    def rms_norm_eps(self) -> float:
        """Epsilon of the RMS norms."""

    @property
    def final_logit_softcapping(self) -> float | None:
        """Bound of the logits, None for none."""

    @property
    def bos_token_id(self) -> int | None:
        """Id of the token that begins a text."""

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """Ids of all tokens that end generation; at least one."""

    @property
    def pad_token_id(self) -> int | None:
        """Id of the padding token."""

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Dimensions of every decoder layer."""

    @property
    def layer_embedding(self) -> int:
        """Numbers of a token's embedding for each decoder layer, 0 for a model without such embeddings."""

    @property
    def streams(self) -> int:
        """Copies of the residual stream that the layers predict and correct (AltUp), 1 for the usual single one."""

    @property
    def normed_values(self) -> bool:
        """Whether values are normed before attention, as keys are."""

    @property
    def rope(self) -> Rope:
        """Rotary position embedding."""

    @property
    def parameters(self) -> int:
        """Weights of the text model, a tied embedding counted once."""

    @property
    def layer_parameters(self) -> tuple[int, ...]:
        """Weights of every decoder layer's matrices, norms left out."""


def global_layers(config: TextConfig) -> int:
    """Number of layers that attend to the whole context."""
    return sum(not layer.is_local for layer in config.layers)
