"""Grids: what gguf-py says the points are, and the nearest of them by trying all."""

from __future__ import annotations

import numpy as np
import pytest
from gguf import quants

from blocks import GRIDS
from gemmaq.encodings import ENCODINGS
from gemmaq.encodings.grids import DISTANCES, grid


@pytest.mark.parametrize("name", GRIDS)
def test_levels_are_those_of_gguf_py(name: str) -> None:
    ours, theirs = grid(name), getattr(quants, name.upper())
    theirs.init_grid()
    magnitudes = np.array(ENCODINGS[name].codebook[::2], np.float32)
    assert np.array_equal(magnitudes[ours.points], theirs.grid.reshape(theirs.grid_shape))
    assert np.array_equal(ENCODINGS[name].codebook[1::2], -magnitudes)
    assert np.array_equal(ours.odd, 2.0 * ours.points + 1)
    width = ours.points.shape[1]
    levels = ours.packed[:, None] >> np.arange(width) * ours.bits & (1 << ours.bits) - 1
    assert np.array_equal(levels, ours.points)


@pytest.mark.parametrize("name", GRIDS)
def test_near_points_are_all_in_the_smallest_distances(name: str) -> None:
    ours = grid(name)
    width = ours.points.shape[1]
    places = ours.levels ** np.arange(width)
    assert np.array_equal(ours.indices[ours.points @ places], np.arange(len(ours.points)))
    assert (ours.indices >= 0).sum() == len(ours.points)
    for number in np.random.default_rng(3).integers(0, len(ours.indices), 200):
        near = ours.near[ours.starts[number] : ours.starts[number + 1]]
        if ours.indices[number] >= 0:
            assert near.tolist() == [ours.indices[number]]
            continue
        levels = number // places % ours.levels
        squares = np.square(ours.points.astype(int) - levels).sum(axis=1)
        limit = np.unique(squares)[DISTANCES[name] - 1]
        expected = sorted(np.flatnonzero(squares <= limit), key=lambda index: (squares[index], index))
        assert near.tolist() == expected
    assert ours.starts[-1] == len(ours.near)
