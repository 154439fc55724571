"""Detect the int4 grid that a checkpoint was trained on, and put every weight back on it.

Quantization-aware training leaves weights that are code * scale, rounded to BF16. Requantizing them by another rule
than the one they were trained with moves most of them: a scale of absmax/8 where the training had absmax/7 costs 8 %.
If a block lies on a symmetric grid, its largest magnitude is k * scale with k in 1..8: eight candidates are all there
are. The smallest k that explains every weight of the block is taken, and the scale is refined by least squares, or
set to the BF16 or FP16 number that reproduces the stored weights exactly, if there is one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gemmaq.encodings import Quantized
from gemmaq.errors import InputError
from gemmaq.methods import METHODS

if TYPE_CHECKING:
    from gemmaq.encodings import F32, Encoding, Values
    from gemmaq.methods import Choice

BLOCK = 32
_ON_GRID = 0.98
"""Share of blocks that must lie on a grid for the tensor to count as on it."""
_FEW = 16
"""Number of blocks below which nothing is concluded."""

EXTREMUM = "extremum/-8"
ABSMAX_7 = "absmax/7"
ABSMAX_7_5 = "absmax/7.5"
PER_CHANNEL = "per channel"
FREE = "free scale"
FIVE_BITS = "Q5_0"


@dataclass(frozen=True, slots=True)
class GridFit:
    """How a tensor fits a quantization grid.

    Attributes:
        rule: rule of its scales, None if it lies on no grid.
        share: share of the sampled blocks that lie on the grid.
        residual: rms distance of the weights from the grid, relative to their rms.
        blocks: number of sampled blocks.
    """

    rule: str | None
    share: float
    residual: float
    blocks: int

    @property
    def on_grid(self) -> bool:
        """Whether the grid has four bits, so that Q4_0 can hold it."""
        return self.rule is not None and self.rule != FIVE_BITS


def detect(x: F32) -> GridFit:
    """Detect a grid in sample rows, f32 [rows, columns], columns a multiple of 32."""
    from gemmaq.methods.lattice_kernels import fit_blocks

    blocks = x.reshape(-1, BLOCK)
    ks, scales = np.empty(len(blocks), np.int32), np.empty(len(blocks), np.float32)
    errors = np.empty(len(blocks), np.float32)
    fit_blocks(blocks, 16, ks, scales, errors)
    counted = ks >= 0  # blocks with too few nonzero weights fit any grid
    count = int(counted.sum())
    if count < _FEW:
        return GridFit(None, 0.0, 1.0, count)
    four = counted & (ks >= 1) & (ks <= 8)
    share = float(four.sum()) / count
    if share >= _ON_GRID:
        residual = float(np.sqrt(errors[four].sum() / np.square(blocks[four]).sum()))
        rows = len(x), -1
        return GridFit(_rule(ks.reshape(rows), scales.reshape(rows), four.reshape(rows)), share, residual, count)
    five = counted & (ks >= 1)
    wide = float(five.sum()) / count
    if wide >= _ON_GRID:
        residual = float(np.sqrt(errors[five].sum() / np.square(blocks[five]).sum()))
        return GridFit(FIVE_BITS, wide, residual, count)
    return GridFit(None, share, 1.0, count)


def _rule(ks: np.ndarray, scales: F32, fits: np.ndarray) -> str:
    """Name the rule of blocks that lie on a grid: k and signed scale of each, shaped [rows, blocks]."""
    codes, signs = ks[fits], scales[fits] > 0
    eights = codes == 8
    if eights.mean() > _ON_GRID:
        return EXTREMUM
    if (codes == 7).mean() > _ON_GRID:
        return ABSMAX_7
    if (eights | (codes == 7)).mean() > _ON_GRID and signs[eights].mean() > _ON_GRID:
        return ABSMAX_7_5
    row_scale = np.where(fits, np.abs(scales), np.inf).min(axis=1, keepdims=True)
    steps = np.abs(scales) / row_scale
    whole = np.abs(steps - np.rint(steps)) < 0.02 * steps
    return PER_CHANNEL if ks.shape[1] > 1 and whole[fits].mean() > _ON_GRID else FREE


def quantize(x: F32, encoding: Encoding, choice: Choice) -> Values:
    """Codes and scales of rows on the grid they were trained for.

    Blocks on no grid get the candidate scale with the smallest error. Where a scale is rounded, codes are chosen again
    for the rounded one.

    Args:
        x: f32 [rows, columns], finite.
        encoding: a LINEAR type of four bits in blocks of 32.
        choice: whether scales have to be portable.

    Raises:
        InputError: another encoding.
    """
    from gemmaq.encodings.kernels import round_to_scales
    from gemmaq.encodings.rounding import portable
    from gemmaq.methods.lattice_kernels import code_blocks

    if not METHODS["lattice"].writes(encoding):
        raise InputError(f"method lattice recovers int4 grids, {encoding.label} has none")
    blocks = x.reshape(-1, BLOCK)
    codes, scales = np.empty(blocks.shape, np.uint8), np.empty(len(blocks), np.float32)
    code_blocks(blocks, codes, scales)
    if choice.portable:
        exact, scales = scales, portable(scales)
        round_to_scales(blocks, scales, np.flatnonzero(scales != exact), encoding.zero, codes)
    return Quantized(codes.reshape(x.shape), scales.reshape(len(x), -1))
