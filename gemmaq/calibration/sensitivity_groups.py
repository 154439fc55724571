"""What is quantized together when sensitivities are measured: single tensors, or a kind of matrix in a band of layers.

Fine groups are exact, but cost as many passes through half of the model as it has matrices. In coarse ones the matrices
of a kind in neighbouring layers share one pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gemmaq.calibration.sensitivity_errors import PROBES, fitting
from gemmaq.checkpoint import Checkpoint, Tensor
from gemmaq.models.roles import Role

BANDS = 6
"""Bands of layers of the coarse mode, equally deep."""
_LIMIT = 4e14
"""Operations of the fine mode that take about an hour on two cores, at 100 billion a second."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How sensitivities are measured.

    Attributes:
        tokens: tokens of text that variants of the model are run on, about.
        coarse: measure kinds of matrices in bands of layers instead of single ones; None where single ones would take
            longer than about an hour on two cores.
    """

    tokens: int = 1024
    coarse: bool | None = None

    def is_coarse(self, checkpoint: Checkpoint) -> bool:
        """Whether a model is measured coarsely."""
        if self.coarse is not None:
            return self.coarse
        return operations(checkpoint, groups(checkpoint, coarse=False), self.tokens) > _LIMIT


@dataclass(frozen=True, slots=True)
class Variant:
    """A model with some tensors in another type.

    Attributes:
        name: name of its files.
        names: canonical names of the tensors.
        first: the layer from which on it is another model: 0 for tables, the number of layers for a head of its own.
        is_table: whether it is a table, read by token.
    """

    name: str
    names: tuple[str, ...]
    first: int
    is_table: bool


def groups(checkpoint: Checkpoint, *, coarse: bool) -> list[Variant]:
    """The groups of a model: tables, then matrices in the order of layers. Those that no probe fits stay floats.

    Args:
        checkpoint: the model.
        coarse: matrices of a kind in a band of layers instead of single ones.
    """
    found: dict[tuple[object, ...], list[Tensor]] = {}
    for tensor in checkpoint.tensors.values():
        role, place = tensor.place.role, tensor.place
        if not any(e.name in PROBES for e in fitting([tensor.columns])):
            continue
        if role.is_table:
            found[(tensor.name,)] = [tensor]
        elif role.is_layer_matrix and place.layer is not None:
            band = place.layer * BANDS // len(checkpoint.config.layers)
            found.setdefault((place.kind, band) if coarse else (tensor.name,), []).append(tensor)
    made = [
        Variant(
            f"{number:05}",
            tuple(tensor.name for tensor in tensors),
            _first(checkpoint, tensors),
            tensors[0].place.role.is_table,
        )
        for number, tensors in enumerate(found.values())
    ]
    return sorted(made, key=lambda variant: variant.first)


def _first(checkpoint: Checkpoint, tensors: list[Tensor]) -> int:
    if tensors[0].place.role is Role.HEAD:
        return len(checkpoint.config.layers)
    return min(tensor.place.layer or 0 for tensor in tensors)


def layer_passes(variants: list[Variant], layers: int) -> int:
    """Layers that the sequences of text go through, all variants together."""
    return sum(layers - variant.first for variant in variants)


def active(checkpoint: Checkpoint) -> list[int]:
    """Weights of every layer that a token goes through."""
    counts = []
    for number, layer in enumerate(checkpoint.config.layers):
        matrices = [t for t in checkpoint.matrices.values() if t.place.layer == number]
        share = layer.experts.active / layer.experts.count if layer.experts else 1.0
        counts.append(int(sum(t.elements * (share if t.matrices > 1 else 1.0) for t in matrices)))
    return counts


def operations(checkpoint: Checkpoint, variants: list[Variant], tokens: int) -> float:
    """Multiplications and additions of the layers for all variants, without those that calibrate."""
    each = np.array(active(checkpoint), np.float64)
    return float(2 * tokens * sum(each[variant.first :].sum() for variant in variants))


def of_layers(checkpoint: Checkpoint, variant: Variant) -> Mapping[int, list[Tensor]]:
    """Layer -> the tensors of a variant that are in it."""
    found: dict[int, list[Tensor]] = {}
    for name in variant.names:
        tensor = checkpoint.tensors[name]
        if tensor.place.layer is not None:
            found.setdefault(tensor.place.layer, []).append(tensor)
    return found
