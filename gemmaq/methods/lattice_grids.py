"""The grids that weights are found on, as data, and the choice among them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int32]

ON_GRID = 0.98
"""Share of blocks that must lie on a grid for the whole tensor to count as on it."""
PARTLY = 0.05
"""Share of blocks from which on a tensor is partly on a grid. Of ordinary weights, 4 blocks in a million fit one."""

_INT4 = 8


@dataclass(frozen=True, slots=True)
class Grid:
    """A grid: code * scale, one scale for every block of 32 weights or for every channel.

    Attributes:
        name: name of the grid.
        bits: bits of its codes.
        tops: codes that the weight of largest magnitude has, first and last.
        signed: whether the scale takes the sign that makes the weight of largest magnitude negative.
        per_channel: whether all weights of a channel (an output row, or a layer's slice of a row) share a scale.
        half_steps: whether the levels are (code + 1/2) * scale, so that there is no zero.
        held: whether Q4_0 holds every block of it.
    """

    name: str
    bits: int
    tops: tuple[int, int] = (1, _INT4)
    signed: bool = True
    per_channel: bool = False
    half_steps: bool = False
    held: bool = True


EXTREMUM, ABSMAX_7, ABSMAX_7_5, FREE = "extremum/-8", "absmax/7", "absmax/7.5", "free scale"
PER_CHANNEL, TWO_BITS, EIGHT_BITS = "per channel", "2-bit channel", "8-bit channel"
HALF_STEPS, HALVES_PER_CHANNEL = "half steps", "4-bit halves"
TWO_BIT_HALVES = "2-bit halves"
FIVE_BITS = "Q5_0"

GRIDS: dict[str, Grid] = {
    grid.name: grid
    for grid in (
        Grid(EXTREMUM, 4, (8, 8)),
        Grid(ABSMAX_7, 4, (7, 7), signed=False),
        Grid(ABSMAX_7_5, 4, (7, 8), signed=False),
        Grid(TWO_BITS, 2, per_channel=True),
        Grid(TWO_BIT_HALVES, 2, per_channel=True, half_steps=True),
        Grid(PER_CHANNEL, 4, per_channel=True),
        Grid(FREE, 4),
        Grid(HALVES_PER_CHANNEL, 4, per_channel=True, half_steps=True, held=False),
        Grid(HALF_STEPS, 4, (1, 15), half_steps=True, held=False),
        Grid(FIVE_BITS, 5, (1, 16), held=False),
        Grid(EIGHT_BITS, 8, per_channel=True, held=False),
    )
}
"""Name -> grid, the narrower one first where a tensor could lie on two."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was found of every block of a sample; of its channel too, the same for all of its blocks.

    Attributes:
        tops: code of the weight of largest magnitude, i32 [blocks]: 0 on no grid, -1 too few weights to tell.
        turned: whether the scale is negative, bool [blocks].
        odd: whether all codes are odd, bool [blocks].
        wide: the larger magnitude of the channel's smallest and largest code, i32 [blocks]; 0 on no grid.
        narrow: the smaller of the two.
        channel_odd: whether all codes of the channel are odd, bool [blocks].
    """

    tops: Ints
    turned: Mask
    odd: Mask
    wide: Ints
    narrow: Ints
    channel_odd: Mask

    @property
    def counted(self) -> Mask:
        """Blocks that prove something, alone or as part of a channel of few bits."""
        return (self.tops >= 0) | self._channel(4)

    @property
    def held(self) -> Mask:
        """Blocks that Q4_0 holds: by themselves, or by their channel where they have too few weights to tell."""
        return ((self.tops > 0) & (self.tops <= _INT4)) | ((self.tops < 0) & self._channel(4))

    def _channel(self, bits: int) -> Mask:
        """Blocks of channels whose codes have this many bits, if need be with the scale's sign turned."""
        half = 1 << (bits - 1)
        return (self.wide > 0) & (self.wide <= half) & (self.narrow < half)

    def members(self, grid: Grid) -> Mask:
        """Blocks that lie on a grid."""
        if grid.per_channel and grid.half_steps:
            return self.channel_odd & (self.wide > 0) & (self.wide < 1 << grid.bits)
        if grid.per_channel:
            return self._channel(grid.bits)
        first, last = grid.tops
        fits = (self.tops >= first) & (self.tops <= last)
        if not grid.signed:
            fits &= (self.tops != _INT4) | ~self.turned
        return fits & self.odd if grid.half_steps else fits


def choose(evidence: Evidence) -> Grid | None:
    """The grid that blocks lie on: nearly all of them, or some of them on one that Q4_0 holds."""
    held, counted = evidence.held, evidence.counted
    count, on = int(counted.sum()), int(held.sum())
    foreign = _common(evidence, counted, held=False) if on < ON_GRID * count else None
    if foreign or on < PARTLY * count:
        return foreign
    return _common(evidence, held, held=True) or GRIDS[FREE]


def _common(evidence: Evidence, blocks: Mask, *, held: bool) -> Grid | None:
    """The first grid that nearly all of some blocks lie on, among those that Q4_0 holds or among the others."""
    enough = ON_GRID * int(blocks.sum())
    grids = (grid for grid in GRIDS.values() if grid.held is held)
    return next((grid for grid in grids if int((blocks & evidence.members(grid)).sum()) > enough), None)
