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
    """Matrix that chooses experts, [experts, hidden], or gives the factors with which streams are mixed."""
    LAYER_EMBEDDING = "layer embedding"
    """Embedding with rows for every decoder layer, [vocabulary, layers * width]."""
    LAYER_PROJECTION = "layer projection"
    """Matrix that makes inputs of every decoder layer from the token embedding, [layers * width, hidden]."""
    DENSE = "dense"
    """Matrix behind the pooling of a model that embeds, [out, in]."""
    PROJECTION = "projection"
    """Matrix between a drafter and its target, [out, in]."""
    FLOAT = "float matrix"
    """Matrix, or stack of matrices, that stays in floats: no quantizer quantizes it."""
    NORM = "norm"
    """Weight vector of an RMS norm."""
    SCALAR = "scalar"
    """Single factor or vector that is neither a norm nor a matrix."""
    TOWER = "tower"
    """Tensor of the towers, which turn images or sound into embeddings, or of their projectors."""

    @property
    def is_table(self) -> bool:
        """Whether rows belong to tokens of the vocabulary: looked up, or multiplied only behind the last layer."""
        return self in (Role.EMBEDDING, Role.HEAD, Role.LAYER_EMBEDDING)

    @property
    def is_layer_matrix(self) -> bool:
        """Whether the tensor is multiplied with activations inside a decoder layer: it can be calibrated."""
        return self in (Role.MATRIX, Role.EXPERTS)

    @property
    def is_matrix(self) -> bool:
        """Whether the tensor is a table or a matrix of the text model."""
        return self.is_quantizable or self in (Role.ROUTER, Role.LAYER_PROJECTION, Role.FLOAT)

    @property
    def is_quantizable(self) -> bool:
        """Whether the tensor gets the type that a user asks for; all others stay floats."""
        return self.is_table or self.is_layer_matrix or self in (Role.DENSE, Role.PROJECTION)


@dataclass(frozen=True, slots=True)
class Place:
    """Place of a tensor in its model.

    Attributes:
        role: Role of the tensor.
        layer: Index of its decoder layer, None outside the layers.
        part: Its name inside a layer without `.weight` (`mlp.down_proj`), empty outside the layers.
        kind: Kind of the tensor, which tables group by: one of the kinds of matrices below, or another word such as
            `norm`, `embedding`, `vision` or `audio`.
    """

    role: Role
    layer: int | None = None
    part: str = ""
    kind: str = ""


QUERY, KEY, VALUE, OUTPUT, GATE, UP, DOWN = "q_proj", "k_proj", "v_proj", "o_proj", "gate", "up", "down"
GATE_UP_EXPERTS, DOWN_EXPERTS = "experts gate+up", "experts down"
"""Kinds of layer matrices (`Place.kind`) in every family: mixtures and reports look for them."""

NOWHERE = Place(Role.SCALAR)
"""Place of a tensor before its family has given it one."""
