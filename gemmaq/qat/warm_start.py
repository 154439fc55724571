"""A student that begins on the grid: with the codes and scales of another method, GPTQ's for example.

The scales stay as they are, and every latent weight lies in the cell of its code: at the teacher's weight where that
is in the cell, else in the half of the cell nearer to it. It must not lie on the edge of the cell, as the first step
would move all such weights to the next code at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np

from gemmaq.checkpoint import Checkpoint
from gemmaq.checkpoint.rows import read_rows, values_of, weights
from gemmaq.encodings import ENCODINGS
from gemmaq.methods import Choice, quantize
from gemmaq.planning.survey import detect_grids

if TYPE_CHECKING:
    from gemmaq.encodings import F32, Encoding, Quantized
    from gemmaq.inference.decoder import Decoder


@dataclass(frozen=True, slots=True)
class WarmStart:
    """Matrices of the student that begin on the grid.

    Attributes:
        teacher: decoder of the source.
        initial: decoder of the checkpoint that gives codes and scales.
        encoding: encoding of these codes.
        names: canonical names of the matrices.
        seed: seed of the latent weights' places within their cells.
    """

    teacher: Decoder
    initial: Decoder
    encoding: Encoding
    names: frozenset[str]
    seed: int

    def matrix(self, name: str) -> tuple[F32, F32] | None:
        """Latent weights f32 [rows, columns] and scales f32 [rows, blocks]; None if the matrix is not on the grid."""
        if name not in self.names:
            return None
        tensor = self.initial.checkpoint.tensors[name]
        if tensor.encoding is self.encoding:
            codes: Quantized = values_of(tensor, read_rows(tensor, 0, tensor.rows, self.initial.reader, bytearray()))
        else:
            stored = weights(tensor, 0, tensor.rows, self.initial.reader)
            codes = quantize(stored, self.encoding, Choice("lattice", True))
        teacher = self.teacher.read(self.teacher.checkpoint.tensors[name])
        random = np.random.default_rng([self.seed, crc32(name.encode())])
        return latents(teacher, codes, random), codes.scales


def find(teacher: Decoder, initial: Decoder, encoding_name: str | None, seed: int) -> WarmStart | None:
    """The matrices of the student's checkpoint that lie on the grid of an encoding.

    Args:
        teacher: decoder of the source.
        initial: decoder of the student's initial weights.
        encoding_name: name of the encoding, None for a grid that is no encoding.
        seed: seed of the latent weights.

    Returns:
        None if there are none, or if the student begins with the teacher's weights.

    Raises:
        InputError: the checkpoint cannot be read.
    """
    if encoding_name is None or initial is teacher:
        return None
    encoding = ENCODINGS[encoding_name]
    names = on_grid(initial.checkpoint, encoding)
    return WarmStart(teacher, initial, encoding, frozenset(names), seed) if names else None


def on_grid(checkpoint: Checkpoint, encoding: Encoding) -> list[str]:
    """Matrices of the decoder layers in an encoding, or stored as floats on its grid."""
    verdicts = detect_grids(checkpoint)
    return [
        name
        for name, tensor in checkpoint.matrices.items()
        if tensor.encoding is encoding or (name in verdicts and verdicts[name].on_grid)
    ]


def latents(teacher: F32, codes: Quantized, random: np.random.Generator) -> F32:
    """Latent weights in the cells of codes, as near to the teacher's weights as is safe."""
    steps = np.repeat(codes.scales.reshape(-1), teacher.size // codes.scales.size).reshape(teacher.shape)
    safe = np.where(steps == 0, np.float32(1), steps)
    centers = codes.codes.astype(np.float32) - 8
    offset = teacher / safe - centers
    inside = (np.abs(offset) < 0.5) | ((centers == -8) & (offset < 0)) | ((centers == 7) & (offset > 0))
    drawn = np.sign(offset) * random.random(teacher.shape, np.float32) * np.float32(0.5)
    placed: F32 = ((centers + np.where(inside, offset, drawn)) * steps).astype(np.float32)
    return placed
