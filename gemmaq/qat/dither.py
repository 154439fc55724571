"""Dither: noise that takes weights off the lattice of an earlier quantization.

Where a source was quantized before, about half of its weights lie near the middle between two values of the new grid,
so that the smallest optimizer step moves all of them to another code at once and training diverges. Uniform noise as
wide as a step of the old lattice makes them ordinary weights again. The model with the noise is then both teacher and
student.
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
from gemmaq.methods.lattice_grids import GRIDS
from gemmaq.planning.survey import detect_grids

if TYPE_CHECKING:
    from gemmaq.encodings import F32, Values

_SLAB = 1 << 22
_COARSE_BITS = 5
"""Steps of lattices with more bits are small beside those of the new grid."""
_FEW_BITS = 4
"""Lattices of at most this many bits have steps as wide as the new grid's: half the noise is enough."""


def on_lattice(checkpoint: Checkpoint, verdicts: Mapping[str, GridFit] | None = None) -> dict[str, str]:
    """The matrices of the layers that lie on a lattice: canonical name -> its name, `Q5_0` or `absmax/7`.

    Args:
        checkpoint: checkpoint to examine.
        verdicts: grids that its float matrices lie on, None to detect them.

    Raises:
        InputError: the checkpoint cannot be read.
    """
    lattices = {}
    verdicts = detect_grids(checkpoint) if verdicts is None else verdicts
    for name, tensor in checkpoint.matrices.items():
        verdict = verdicts.get(name)
        if not tensor.encoding.is_float:
            lattices[name] = tensor.encoding.label
        elif verdict is not None and verdict.rule is not None and GRIDS[verdict.rule].bits <= _COARSE_BITS:
            lattices[name] = verdict.rule
    return lattices


def dithered(checkpoint: Checkpoint, seed: int, lattices: Mapping[str, str]) -> Iterator[tuple[str, F32]]:
    """Add uniform noise to matrices: half a step to either side, or a quarter if the lattice has four bits.

    Args:
        checkpoint: checkpoint to read.
        seed: seed of the noise; that of a tensor does not depend on the other tensors.
        lattices: result of `on_lattice`.

    Yields:
        Canonical name and weights, f32 in the tensor's shape.

    Raises:
        InputError: the checkpoint cannot be read.
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
    """The lattice's step for every group of weights, f32 [rows, groups], and its bits."""
    if not tensor.encoding.is_float:
        scales = stored.scales.reshape(len(weights), -1)
        if stored.supers is not None:
            scales = scales * np.repeat(stored.supers, scales.shape[1] // stored.supers.shape[1], axis=1)
        return np.abs(scales), tensor.encoding.bits
    from gemmaq.methods.lattice_kernels import fit_blocks

    blocks = np.ascontiguousarray(weights).reshape(-1, BLOCK)
    ks, steps = np.empty(len(blocks), np.int32), np.empty(len(blocks), np.float32)
    fit_blocks(blocks, 16, ks, steps, np.empty(len(blocks), np.float32))
    fits = ks > 0
    bits = 5 if (ks > 8).sum() > 0.5 * fits.sum() else 4
    return np.where(fits, np.abs(steps), np.float32(0)), bits


def dithered_folder(source: Checkpoint, out: Path, seed: int, threads: int = 2, force: bool = False) -> None:
    """Write a quantized checkpoint with noise, as a Hugging Face folder in BF16.

    Raises:
        InputError: the checkpoint cannot be read.
        OutputError: the folder exists, or cannot be written.
    """
    from gemmaq.qat.export import write_folder

    write_folder(source, dithered(source, seed, on_lattice(source)), out, threads=threads, force=force)
