"""Detect the int4 grid that a checkpoint was trained on, and put every weight back on it.

Quantization-aware training leaves weights that are code * scale, rounded to BF16. Requantizing them by another rule
than the one they were trained with moves most of them: a scale of absmax/8 where the training had absmax/7 costs 8 %.
If a block lies on a symmetric grid, its largest magnitude is k * scale with k in 1..8: eight candidates are all there
are. The smallest k that explains every weight of the block is taken, and the scale is refined by least squares, or
set to the BF16 or FP16 number that reproduces the stored weights exactly, if there is one. Blocks that no k explains
are rounded as method nearest does it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from gemmaq.encodings import Quantized, codec
from gemmaq.errors import InputError
from gemmaq.methods import METHODS
from gemmaq.methods.lattice_grids import GRIDS, ON_GRID, Evidence, Mask, choose

if TYPE_CHECKING:
    from gemmaq.encodings import F32, Encoding, Values
    from gemmaq.methods import Choice

BLOCK = 32
_FEW = 16
"""Number of blocks below which nothing is concluded."""
_OFF = 100
"""Number of blocks off the grid whose distance from int4 codes is measured, or up to twice as many."""
_WIDEST = 16
"""Largest code of a block that is looked for: that of Q5_0."""


class Verdict(StrEnum):
    """How much of a tensor lies on an int4 grid that Q4_0 holds."""

    WHOLE = "whole"
    PARTIAL = "partial"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class GridFit:
    """How a tensor fits a quantization grid.

    Attributes:
        rule: name of the grid in `lattice_grids.GRIDS`, None if it lies on none.
        share: share of the sampled blocks that lie on the grid.
        residual: rms distance of the weights on the grid from it, relative to their rms; 0 if there are none.
        blocks: number of sampled blocks.
        distance: rms distance of the weights off the grid from the closest int4 codes, relative to their rms; 0 if
            there are none. Ordinary weights are 0.07 to 0.09 off.
        experts: fit of every matrix of a stack.
    """

    rule: str | None
    share: float
    residual: float
    blocks: int
    distance: float = 0.0
    experts: tuple[GridFit, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """How much of the tensor Q4_0 holds exactly; a stack is whole if every expert is."""
        if self.experts:
            verdicts = {expert.verdict for expert in self.experts}
            return verdicts.pop() if len(verdicts) == 1 else Verdict.PARTIAL
        if self.rule is None or not GRIDS[self.rule].held:
            return Verdict.NONE
        return Verdict.WHOLE if self.share >= ON_GRID else Verdict.PARTIAL

    @property
    def on_grid(self) -> bool:
        """Whether all of the tensor lies on a grid of four bits, so that Q4_0 can hold it."""
        return self.verdict is Verdict.WHOLE

    def experts_with(self, verdict: Verdict) -> int:
        """Number of experts with a verdict."""
        return sum(expert.verdict == verdict for expert in self.experts)


def detect(x: F32, width: int | None = None) -> GridFit:
    """Detect a grid in sample rows.

    Args:
        x: f32 [rows, columns], columns a multiple of 32.
        width: weights of a channel, None for a whole row; it divides the columns.
    """
    from gemmaq.methods.lattice_kernels import stray

    blocks = x.reshape(-1, BLOCK)
    evidence, errors, channel_errors = _evidence(blocks, width or x.shape[1])
    count = int(evidence.counted.sum())
    if count < _FEW:
        return GridFit(None, 0.0, 0.0, count)
    grid = choose(evidence)
    fits = evidence.counted & (evidence.held if grid is None or grid.held else evidence.members(grid))
    squares = np.square(blocks, dtype=np.float64).sum(axis=1)
    off = np.flatnonzero(evidence.counted & ~fits)
    off = off[:: max(1, len(off) // _OFF)]
    lost = np.empty(len(off), np.float32)
    stray(blocks[off], lost)
    if grid is not None and grid.per_channel:
        errors = channel_errors
    return GridFit(
        grid.name if grid else None,
        float(fits.sum()) / count,
        _relative(errors[fits], squares[fits]),
        count,
        _relative(lost, squares[off]),
    )


def _evidence(blocks: F32, width: int) -> tuple[Evidence, F32, F32]:
    """What is found of blocks [n, 32] in channels of `width` weights; squared errors on their own and channels' grids.

    A channel's error is spread over its blocks.
    """
    from gemmaq.methods.lattice_kernels import fit_blocks, fit_channels

    tops, scales = np.empty(len(blocks), np.int32), np.empty(len(blocks), np.float32)
    errors = np.empty(len(blocks), np.float32)
    fit_blocks(blocks, _WIDEST, tops, scales, errors)
    with np.errstate(invalid="ignore"):  # NaN is refused later, when it is to be written
        codes = np.rint(blocks / np.where(tops > 0, scales, np.float32(np.inf))[:, None]).astype(np.int32)
    odd: Mask = np.all(codes & 1, axis=1)

    channels, per = blocks.size // width, width // BLOCK
    highs, lows = np.zeros(channels, np.int32), np.zeros(channels, np.int32)
    all_odd, lost = np.zeros(channels, np.bool_), np.zeros(channels, np.float32)
    if per > 1:  # of a channel that is a single block, all is known
        fit_channels(blocks.reshape(channels, width), highs, lows, all_odd, lost)
    wide, narrow, channel_odd, lost = (
        np.repeat(array, per)
        for array in (np.maximum(highs, -lows), np.minimum(highs, -lows), all_odd, lost / np.float32(per))
    )
    return Evidence(tops, scales < 0, odd, wide, narrow, channel_odd), errors, lost


def _relative(errors: np.ndarray, squares: np.ndarray) -> float:
    """Rms of errors relative to the rms of the weights, from squares of both."""
    total = float(squares.sum())
    return float(np.sqrt(errors.sum(dtype=np.float64) / total)) if total else 0.0


def together(experts: Sequence[GridFit]) -> GridFit:
    """The fit of a stack from those of its matrices: the most frequent grid among those on one that Q4_0 holds.

    Shares, residuals and distances are means over blocks. Residuals and distances are root mean squares.
    """
    held = np.array([fit.verdict is not Verdict.NONE for fit in experts])
    alike = held if held.any() else ~held
    rules = Counter(fit.rule for fit, counts in zip(experts, alike, strict=True) if counts)
    rule = rules.most_common(1)[0][0]
    blocks = np.array([fit.blocks for fit in experts])
    on = np.array([fit.share * fit.blocks for fit in experts]) * alike
    total = int(blocks.sum())
    off = blocks - on
    return GridFit(
        rule,
        float(on.sum() / total) if total else 0.0,
        _relative(on * [fit.residual**2 for fit in experts], on),
        total,
        _relative(off * [fit.distance**2 for fit in experts], off),
        tuple(experts),
    )


def quantize(x: F32, encoding: Encoding, choice: Choice) -> Values:
    """Codes and scales of rows on the grid they were trained for.

    Blocks on no grid are rounded as method nearest does it. Where a scale is rounded, codes are chosen again for the
    rounded one.

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

    nearest = codec(encoding).nearest
    if not METHODS["lattice"].writes(encoding) or nearest is None:
        raise InputError(f"method lattice recovers int4 grids, {encoding.label} has none")
    blocks = x.reshape(-1, BLOCK)
    codes, scales = np.empty(blocks.shape, np.uint8), np.empty(len(blocks), np.float32)
    fits = np.empty(len(blocks), np.bool_)
    code_blocks(blocks, codes, scales, fits)
    off = np.flatnonzero(~fits)
    if off.size:
        rounded = nearest(blocks[off])
        codes[off], scales[off] = rounded.codes, rounded.scales[:, 0]
    if choice.portable:
        exact, scales = scales, portable(scales)
        round_to_scales(blocks, scales, np.flatnonzero(scales != exact), encoding.zero, codes)
    return Quantized(codes.reshape(x.shape), scales.reshape(len(x), -1))
