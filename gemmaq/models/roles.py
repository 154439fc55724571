"""The role of a tensor in a model: the question that other rooms ask instead of looking at names and shapes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """Role of a tensor in a model.

    A family gives every tensor its role; types, methods and layouts are chosen by it.
    """

    EMBEDDING = "embedding"
    """Token embedding, [vocabulary, hidden]; also the output head of a model whose head is tied."""
    HEAD = "head"
    """Output head of its own, [vocabulary, hidden]."""
    MATRIX = "matrix"
    """Matrix of a decoder layer, [out, in], multiplied with activations."""
    EXPERTS = "experts"
    """Stack of matrices, one per expert, [experts, out, in]."""
    ROUTER = "router"
    """Matrix that chooses experts, [experts, hidden]."""
    LAYER_EMBEDDING = "layer embedding"
    """Embedding with rows for every decoder layer, [vocabulary, layers * width]."""
    NORM = "norm"
    """Weight vector of an RMS norm."""
    SCALAR = "scalar"
    """Single factor or vector that is neither a norm nor a matrix."""
    VISION = "vision"
    """Tensor of the vision tower or of its projector."""

    @property
    def is_table(self) -> bool:
        """Whether rows belong to tokens of the vocabulary: looked up, or multiplied only behind the last layer."""
        return self in (Role.EMBEDDING, Role.HEAD, Role.LAYER_EMBEDDING)

    @property
    def is_layer_matrix(self) -> bool:
        """Whether the tensor is multiplied with activations inside a decoder layer: it can be calibrated."""
        return self in (Role.MATRIX, Role.EXPERTS)

    @property
    def is_quantizable(self) -> bool:
        """Whether the tensor gets the type that a user asks for; all others stay floats."""
        return self.is_table or self.is_layer_matrix


@dataclass(frozen=True, slots=True)
class Place:
    """Place of a tensor in its model.

    Attributes:
        role: Role of the tensor.
        layer: Index of its decoder layer, None outside the layers.
        part: Its name inside a layer without `.weight` (`mlp.down_proj`), empty outside the layers.
        kind: Kind of the tensor, which tables group by: one of the kinds of matrices below, or another word such as
            `norm`, `embedding` or `vision`.
    """

    role: Role
    layer: int | None = None
    part: str = ""
    kind: str = ""


QUERY, KEY, VALUE, OUTPUT, GATE, UP, DOWN = "q_proj", "k_proj", "v_proj", "o_proj", "gate", "up", "down"
"""Kinds of layer matrices (`Place.kind`) in every family: mixtures and reports look for them."""

NOWHERE = Place(Role.SCALAR)
"""Place of a tensor before its family has given it one."""

VISION = Place(Role.VISION, kind="vision")
"""Place of every tensor of the vision side."""
