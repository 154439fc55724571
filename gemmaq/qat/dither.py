"""Weights off the lattice that an earlier quantization put them on.

A source that was quantized before has its weights at the middle between two values of the new grid, or close to it,
half of them at a time: the smallest step of an optimizer moves all of these at once, and training explodes. Uniform
noise of a step of the lattice they lie on makes them ordinary weights again. The model with the noise is then what
is quantized: its own teacher.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np

from gemmaq.checkpoint import Checkpoint, Tensor
from gemmaq.checkpoint.rows import read_rows, values_of
from gemmaq.encodings import dequantize
from gemmaq.files.span import Reader
from gemmaq.methods.lattice import BLOCK, GridFit
from gemmaq.planning.survey import survey

if TYPE_CHECKING:
    from gemmaq.encodings import F32, Values

_SLAB = 1 << 22
_FEW_BITS = 4
"""Steps of grids with so few bits are as wide as those of the grid to come: half the noise does."""


def on_lattice(checkpoint: Checkpoint, verdicts: Mapping[str, GridFit] | None = None) -> dict[str, str]:
    """Which matrices of the layers lie on a lattice already: name -> what it is called, `Q5_0` or `absmax/7`.

    Args:
        checkpoint: the source.
        verdicts: of a survey, None to make one.

    Raises:
        InputError: it cannot be read.
    """
    found = {}
    judged = survey(checkpoint) if verdicts is None else verdicts
    for name, tensor in checkpoint.tensors.items():
        if not tensor.place.role.is_layer_matrix:
            continue
        verdict = judged.get(name)
        if not tensor.encoding.is_float:
            found[name] = tensor.encoding.label
        elif verdict is not None and verdict.rule is not None:
            found[name] = verdict.rule
    return found


def dithered(checkpoint: Checkpoint, seed: int, lattices: Mapping[str, str]) -> Iterator[tuple[str, F32]]:
    """Matrices with uniform noise: half a step to either side, a quarter where the lattice has four bits.

    Args:
        checkpoint: the source.
        seed: of the noise; a tensor's does not depend on which others there are.
        lattices: what `on_lattice` found.

    Yields:
        name and weights, f32 in the tensor's shape.

    Raises:
        InputError: the source cannot be read.
    """
    with Reader() as reader:
        for name in lattices:
            tensor = checkpoint.tensors[name]
            random = np.random.default_rng([seed, crc32(name.encode())])
            out = np.empty((tensor.rows, tensor.columns), np.float32)
            step = max(1, _SLAB // tensor.columns)
            for first in range(0, tensor.rows, step):
                count = min(step, tensor.rows - first)
                stored = values_of(tensor, read_rows(tensor, first, count, reader, bytearray()))
                weights = dequantize(tensor.encoding, stored)
                steps, bits = _steps(tensor, stored, weights)
                noise = random.random(weights.shape, np.float32) - np.float32(0.5)
                noise = noise.reshape(steps.size, -1) * steps.reshape(-1, 1)
                out[first : first + count] = weights + noise.reshape(weights.shape) * np.float32(
                    0.5 if bits <= _FEW_BITS else 1.0
                )
            yield name, out.reshape(tensor.shape)


def _steps(tensor: Tensor, stored: Values, weights: F32) -> tuple[F32, int]:
    """The step of the lattice in every group of weights, f32 [rows, groups], and its bits."""
    if not tensor.encoding.is_float:
        scales = stored.scales.reshape(len(weights), -1)
        if stored.supers is not None:
            scales = scales * np.repeat(stored.supers, scales.shape[1] // stored.supers.shape[1], axis=1)
        return np.abs(scales), tensor.encoding.bits
    from gemmaq.methods.lattice_kernels import fit_blocks

    blocks = np.ascontiguousarray(weights).reshape(-1, BLOCK)
    ks, found = np.empty(len(blocks), np.int32), np.empty(len(blocks), np.float32)
    fit_blocks(blocks, 16, ks, found, np.empty(len(blocks), np.float32))
    fits = ks > 0
    bits = 5 if (ks[fits] > 8).mean() > 0.5 else 4
    return np.where(fits, np.abs(found), np.float32(0)), bits


def dithered_folder(source: Checkpoint, out: Path, seed: int, threads: int = 2, force: bool = False) -> None:
    """A BF16 Hugging Face folder of a quantized source, its weights off their lattice.

    Raises:
        InputError: the source cannot be read.
        OutputError: the folder exists, or cannot be written.
    """
    from gemmaq.qat.export import write_folder

    write_folder(source, dithered(source, seed, on_lattice(source)), out, threads, force)
