"""Where a student begins that begins on a grid already: codes and scales of another method, GPTQ's for example.

The scales are kept as they are, and every latent weight lies in the cell of its code: at the teacher's weight where
that is in the cell, else in the half of the cell that is nearer to it. At the edge itself it must not lie, as the
first step would send all such weights to the other side at once.
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
from gemmaq.planning.survey import survey

if TYPE_CHECKING:
    from gemmaq.encodings import F32, Quantized
    from gemmaq.inference.decoder import Decoder

_Q4_0 = "q4_0"


@dataclass(frozen=True, slots=True)
class Begun:
    """Matrices that begin on the grid of another method.

    Attributes:
        source: teacher.
        start: gives codes and scales.
        names: of the matrices that it has any for.
        seed: of the places of latent weights.
    """

    source: Decoder
    start: Decoder
    names: frozenset[str]
    seed: int

    def matrix(self, name: str) -> tuple[F32, F32] | None:
        """Latents f32 [rows, columns] and scales f32 [rows, blocks], None if the tensor begins as it is."""
        if name not in self.names:
            return None
        tensor = self.start.checkpoint.tensors[name]
        if tensor.encoding.name == _Q4_0:
            found: Quantized = values_of(tensor, read_rows(tensor, 0, tensor.rows, self.start.reader, bytearray()))
        else:
            stored = weights(tensor, 0, tensor.rows, self.start.reader)
            found = quantize(stored, ENCODINGS[_Q4_0], Choice("lattice", True))
        own = self.source.read(self.source.checkpoint.tensors[name])
        random = np.random.default_rng([self.seed, crc32(name.encode())])
        return placed(own, found, random), found.scales


def begun(source: Decoder, start: Decoder, seed: int) -> Begun | None:
    """What of a start lies on a grid of four bits, None if nothing does.

    Raises:
        InputError: it cannot be read.
    """
    names = on_grid(start.checkpoint)
    return Begun(source, start, frozenset(names), seed) if names else None


def on_grid(checkpoint: Checkpoint) -> list[str]:
    """Matrices of the layers that are Q4_0, or floats on its grid with any scales."""
    from gemmaq.qat.model import matrices

    verdicts = survey(checkpoint)
    return [
        name
        for name in matrices(checkpoint)
        if checkpoint.tensors[name].encoding.name == _Q4_0 or (name in verdicts and verdicts[name].on_grid)
    ]


def placed(own: F32, found: Quantized, random: np.random.Generator) -> F32:
    """Latents in the cells of codes, as near to the teacher's weights as is safe."""
    steps = np.repeat(found.scales.reshape(-1), own.size // found.scales.size).reshape(own.shape)
    safe = np.where(steps == 0, np.float32(1), steps)
    codes = found.codes.astype(np.float32) - 8
    offset = own / safe - codes
    inside = (np.abs(offset) < 0.5) | ((codes == -8) & (offset < 0)) | ((codes == 7) & (offset > 0))
    drawn = np.sign(offset) * random.random(own.shape, np.float32) * np.float32(0.5)
    latents: F32 = ((codes + np.where(inside, offset, drawn)) * steps).astype(np.float32)
    return latents
