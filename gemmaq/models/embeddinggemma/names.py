"""Tensor names of EmbeddingGemma: those of Gemma 3, and the dense heads behind the pooling."""

from __future__ import annotations

from gemmaq.models.gemma3 import names as causal
from gemmaq.models.gemma3.names import EMBEDDING as EMBEDDING
from gemmaq.models.gemma3.names import FINAL_NORM as FINAL_NORM
from gemmaq.models.gemma3.names import HEAD as HEAD
from gemmaq.models.gemma3.names import canonical as canonical
from gemmaq.models.gemma3.names import idle as idle
from gemmaq.models.gemma3.names import in_layer as in_layer
from gemmaq.models.gemma3.names import input_sites as input_sites
from gemmaq.models.gemma3.names import is_surplus as is_surplus
from gemmaq.models.gemma3.names import nested as nested
from gemmaq.models.gemma3.names import nested_hf as nested_hf
from gemmaq.models.gemma3.names import shapes as shapes
from gemmaq.models.gemma3.names import slices as slices
from gemmaq.models.roles import Place, Role

HEADS = ("dense_2.weight", "dense_3.weight")
"""Dense heads, in the order in which a pooled vector goes through them; GGUF has the same names."""
KINDS = (*causal.KINDS, "dense")
"""Kinds of tensors in the order of a table."""


def to_gguf(name: str) -> str:
    """GGUF name of a canonical name."""
    return name if name in HEADS else causal.to_gguf(name)


def from_gguf(name: str) -> str | None:
    """Canonical name of a GGUF tensor, None if the model has no such tensor."""
    return name if name in HEADS else causal.from_gguf(name)


def place(name: str) -> Place:
    """Place of a canonical name in the model; for a name that no model has, the role is SCALAR."""
    return Place(Role.DENSE, kind="dense") if name in HEADS else causal.place(name)
