"""Arrangements: how a container stores the numbers of a tensor where it does not store them as they are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Arrangement:
    """Order and values of a tensor's numbers in a container.

    Attributes:
        shape: Shape in the container, rows first.
        view: Shape in which the tensor's own numbers are seen before the axes are permuted; empty for no permutation.
        axes: Order of the axes of `view` in the container.
        softplus: Whether the container has log(1 + e^x) in place of x.
    """

    shape: tuple[int, ...]
    view: tuple[int, ...] = ()
    axes: tuple[int, ...] = ()
    softplus: bool = False

    @property
    def moves(self) -> bool:
        """Whether numbers are in another order, or other numbers."""
        return self.softplus or bool(self.view)

    def mixes(self, rows: int) -> bool:
        """Whether numbers of a tensor with so many rows leave their row: then only a whole tensor can be arranged."""
        return bool(self.view) and (self.axes[0], self.view[0]) != (0, rows)

    def store(self, numbers: NDArray[np.float32]) -> NDArray[np.float32]:
        """The container's numbers from the tensor's, f32 of any shape; the shape stays.

        All of the tensor's numbers, or those of some rows where rows do not mix.
        """
        moved = numbers.reshape(-1, *self.view[1:]).transpose(self.axes) if self.view else numbers
        if self.softplus:  # in doubles, or the last bit would depend on the machine
            moved = np.logaddexp(0, moved.astype(np.float64)).astype(np.float32)
        return np.ascontiguousarray(moved).reshape(numbers.shape)

    def restore(self, numbers: NDArray[np.float32]) -> NDArray[np.float32]:
        """The tensor's numbers from the container's, f32 of any shape; the shape stays. As many as for `store`."""
        moved = numbers
        if self.softplus:
            wide = numbers.astype(np.float64)
            moved = (wide + np.log(-np.expm1(-wide))).astype(np.float32)
        if self.view:
            stored = tuple(self.view[axis] for axis in self.axes)
            moved = moved.reshape(-1, *stored[1:]).transpose(np.argsort(self.axes))
        return np.ascontiguousarray(moved).reshape(numbers.shape)


def permuted(shape: tuple[int, ...], axes: tuple[int, ...]) -> Arrangement:
    """Axes of a tensor of this shape in another order, as convolutions with their channels last have them."""
    return Arrangement(tuple(shape[axis] for axis in axes), shape, axes)


def reshaped(shape: tuple[int, ...], stored: tuple[int, ...]) -> Arrangement | None:
    """The same numbers in another shape; None if it is the same shape."""
    assert math.prod(shape) == math.prod(stored)
    return Arrangement(stored) if shape != stored else None
