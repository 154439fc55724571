"""Tensor names of drafters of Gemma 4: those of a Gemma 4 text model, and two projections to and from the target.

`model.pre_projection` makes the input from two vectors of the target's width, `model.post_projection` leads back; in
checkpoints their names have no `model.`. Centroids and the order of tokens are no part of the model: llama.cpp's
converter leaves them out, and llama.cpp refuses files that have them.
"""

from __future__ import annotations

from collections.abc import Iterator

from gemmaq.models import text_names
from gemmaq.models.gemma4 import names as causal
from gemmaq.models.gemma4.config import TextConfig
from gemmaq.models.gemma4.names import EMBEDDING as EMBEDDING
from gemmaq.models.gemma4.names import FINAL_NORM as FINAL_NORM
from gemmaq.models.gemma4.names import HEAD as HEAD
from gemmaq.models.gemma4.names import idle as idle
from gemmaq.models.gemma4.names import in_layer as in_layer
from gemmaq.models.gemma4.names import input_sites as input_sites
from gemmaq.models.gemma4.names import is_surplus as is_surplus
from gemmaq.models.gemma4.names import slices as slices
from gemmaq.models.roles import Place, Role

PRE, POST = "model.pre_projection.weight", "model.post_projection.weight"
KINDS = (*causal.KINDS, "projection")
"""Kinds of tensors in the order of a table."""

_OUTSIDE = ("masked_embedding",)
_GGUF = {PRE: "nextn.pre_projection.weight", POST: "nextn.post_projection.weight"}
_HF = {gguf: hf for hf, gguf in _GGUF.items()}


def canonical(name: str) -> str | None:
    """Canonical name of a tensor of a checkpoint, None for one outside the model."""
    return text_names.canonical(name, _OUTSIDE)


def nested(name: str) -> str:
    """The name itself: drafters have one layout."""
    return name


def nested_hf(name: str) -> str:
    """The name itself."""
    return name


def to_gguf(name: str) -> str:
    """GGUF name of a canonical name."""
    return _GGUF[name] if name in _GGUF else causal.to_gguf(name)


def from_gguf(name: str) -> str | None:
    """Canonical name of a GGUF tensor, None if the model has no such tensor."""
    return _HF[name] if name in _HF else causal.from_gguf(name)


def place(name: str) -> Place:
    """Place of a canonical name in the model; for a name that no model has, the role is SCALAR."""
    return Place(Role.PROJECTION, kind="projection") if name in _GGUF else causal.place(name)


def shapes(config: TextConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every tensor: name and shape (rows first), in the order of files."""
    hidden, backbone = config.hidden_size, config.backbone_hidden_size
    yield from causal.shapes(config)
    yield POST, (backbone, hidden)
    yield PRE, (hidden, 2 * backbone)
