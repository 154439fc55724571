"""Detect the grid that each matrix of a checkpoint lies on, from a sample of its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from gemmaq.checkpoint import Checkpoint, Tensor
from gemmaq.checkpoint.rows import weights
from gemmaq.files.span import Reader
from gemmaq.methods.lattice import BLOCK, GridFit, detect, together
from gemmaq.models.roles import Role
from gemmaq.planning.drafter import prefixed
from gemmaq.planning.request import Request

_PLACES, _WEIGHTS = 3, 1 << 13
"""Places in a matrix, and weights read at each."""
_EXPERT_PLACES, _EXPERT_WEIGHTS = 2, 1 << 11
"""The same in the matrix of an expert, of which a checkpoint has thousands."""
_TOKENS = 64
"""Tokens of a table whose rows are read."""


def detect_grids(checkpoint: Checkpoint) -> Mapping[str, GridFit]:
    """Canonical name -> fit, for matrices that are stored as floats and whose rows divide into blocks.

    Stacks of experts are judged matrix by matrix. Tables are judged by rows spread over the vocabulary.

    Raises:
        InputError: the weights cannot be read.
    """
    layers = len(checkpoint.config.layers)
    with Reader() as reader:
        return {
            name: _judge(tensor, reader, layers)
            for name, tensor in checkpoint.tensors.items()
            if _is_judged(tensor.place.role) and tensor.encoding.is_float and tensor.columns % BLOCK == 0
        }


def _is_judged(role: Role) -> bool:
    """Whether a tensor of this role may get a type with a grid."""
    return role.is_quantizable or role is Role.LAYER_PROJECTION


def _judge(tensor: Tensor, reader: Reader, layers: int) -> GridFit:
    """The fit of a tensor of a model with so many layers."""
    role = tensor.place.role
    if role is Role.EXPERTS:
        rows = tensor.rows // tensor.shape[0]
        count = min(rows, max(1, _EXPERT_WEIGHTS // tensor.columns))
        places = _spread(rows - count, _EXPERT_PLACES)
        return together([detect(_rows(tensor, places + first, count, reader)) for first in range(0, tensor.rows, rows)])
    if role.is_table:
        ids = (np.arange(_TOKENS) + 0.5) * tensor.rows / _TOKENS  # first and last ones are seldom ordinary words
        slices = layers if role is Role.LAYER_EMBEDDING and tensor.columns % (layers * BLOCK) == 0 else 1
        return detect(_rows(tensor, np.unique(ids.astype(int)), 1, reader), tensor.columns // slices)
    count = min(tensor.rows, max(1, _WEIGHTS // tensor.columns))
    return detect(_rows(tensor, _spread(tensor.rows - count, _PLACES), count, reader))


def _spread(last: int, places: int) -> np.ndarray:
    """First rows of places from 0 to `last`."""
    return np.unique(np.linspace(0, last, places).astype(int))


def _rows(tensor: Tensor, places: np.ndarray, count: int, reader: Reader) -> np.ndarray:
    """So many rows from each place, f32 [rows, columns]."""
    return np.concatenate([weights(tensor, int(place), count, reader) for place in places])


def fits_for(checkpoint: Checkpoint, requests: Sequence[Request]) -> Mapping[str, GridFit]:
    """Detect grids if a method of the requests uses them, those of a drafter too.

    Raises:
        InputError: the weights cannot be read.
    """
    recipes = [request.recipe for request in requests]
    is_used = any(recipe.method != "nearest" and not recipe.body.is_float for recipe in recipes)
    if not is_used or not checkpoint.weights_here:
        return {}
    beside = checkpoint.drafter if any(request.draft for request in requests) else None
    return {**detect_grids(checkpoint), **prefixed(detect_grids(beside) if beside is not None else {})}
