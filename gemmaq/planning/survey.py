"""Detect the grid that each matrix of a checkpoint lies on, from a sample of its rows."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from gemmaq.checkpoint import Checkpoint, Tensor
from gemmaq.checkpoint.rows import weights
from gemmaq.files.span import Reader
from gemmaq.methods.lattice import BLOCK, GridFit, detect
from gemmaq.planning.request import Request

_PLACES = 3
_SAMPLE = 1 << 13
"""Weights read at each place."""


def detect_grids(checkpoint: Checkpoint) -> Mapping[str, GridFit]:
    """Canonical name -> fit, for matrices that are stored as floats and whose rows divide into blocks.

    Raises:
        InputError: the weights cannot be read.
    """
    with Reader() as reader:
        return {
            name: detect(_sample(tensor, reader))
            for name, tensor in checkpoint.tensors.items()
            if tensor.place.role.is_quantizable and tensor.encoding.is_float and tensor.columns % BLOCK == 0
        }


def _sample(tensor: Tensor, reader: Reader) -> np.ndarray:
    """Rows from a few places spread over the tensor."""
    count = min(tensor.rows, max(1, _SAMPLE // tensor.columns))
    places = np.unique(np.linspace(0, tensor.rows - count, _PLACES).astype(int))
    return np.concatenate([weights(tensor, int(place), count, reader) for place in places])


def fits_for(checkpoint: Checkpoint, request: Request) -> Mapping[str, GridFit]:
    """Detect grids if a method of the request uses them; the tokenizer is read at the same time.

    Raises:
        InputError: the weights cannot be read.
    """
    recipe = request.recipe
    is_used = recipe.method != "nearest" and not recipe.body.is_float and checkpoint.weights_here
    with ThreadPoolExecutor(1) as ahead:
        ahead.submit(lambda: checkpoint.tokenizer)  # an error shows again where the tokenizer is needed
        return detect_grids(checkpoint) if is_used else {}
