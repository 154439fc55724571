"""GPTQ: every column's rounding error is made good, as far as possible, by the columns that follow.

It minimises the error of a layer's output on calibration inputs X, |(W - Q) X|^2, which depends on X through the
Hessian H = X X^T alone. Source: Frantar et al., GPTQ, arXiv 2210.17323, whose letters are used here: W the weights
[rows, columns], H the Hessian, Hinv the upper Cholesky factor of its inverse, err the rounding errors divided by Hinv's
diagonal. Unlike the paper, scales of a group are searched for when its turn comes, on the weights as corrected by
then, each column weighed by its diagonal entry of H. Super-blocks get theirs by ggml's rule with an importance matrix,
that diagonal, when their turn comes, and keep them: columns inside are quantized in any order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gemmaq.calibration import cholesky, descent
from gemmaq.encodings import Encoding, Kind, Quantized, codec
from gemmaq.errors import InputError

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from gemmaq.encodings import F32
    from gemmaq.inference.device import Device

_PANEL = 256
"""Columns corrected one by one before all later columns get the errors of the panel in one matrix product."""
LANES = 64
"""Rows quantized together by one worker, whatever the number of threads."""
_STEPS = (-9, 9, np.float32(0.1))
"""Candidate scales of a block: they put its extreme so many times 0.1 levels beyond the last code."""
_ROW_STEPS = (-2, 24, np.float32(0.25))
"""Those of a whole row, where cutting off the few largest weights pays."""
_BOOK_STEPS = (-9, 9, np.float32(0.0125))
"""Those for a codebook, in parts of its last level."""
_NO_STEPS = (0, -1, np.float32(0))
"""With eight bits nothing is to be gained by a search."""
_NO_CODES = np.empty((0, 0), np.uint8)
_RETRIES = 6
_LEAST_RETRY = 1e-4


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of GPTQ.

    Attributes:
        dampening_frac: added to the diagonal of H, as a fraction of its mean.
        act_order: quantize the groups of columns with the largest inputs first, instead of columns as they lie.
        sweeps: passes of coordinate descent over the codes and scales that GPTQ has chosen, see `descent`.
    """

    dampening_frac: float = 0.01
    act_order: bool = True
    sweeps: int = 0


@dataclass(frozen=True, slots=True)
class InverseHessian:
    """The inverse Hessian of some inputs, factored once for all matrices that share these inputs.

    Attributes:
        H: f32 [columns, columns], the Hessian without dampening, columns as they lie.
        Hinv: f32 [columns, columns], upper triangular, Hinv^T Hinv = H^-1 with columns in `order`.
        diagonal: f32 [columns], diagonal of H without dampening, columns as they lie.
        order: i64 [columns], the order in which columns are quantized.
        dampening_frac: fraction that was needed for H to be positive definite.
        ridge: what was added to its diagonal.
    """

    H: torch.Tensor
    Hinv: torch.Tensor
    diagonal: F32
    order: NDArray[np.int64]
    dampening_frac: float
    ridge: float


@dataclass(frozen=True, slots=True)
class Blocks:
    """Columns that are quantized one after the other.

    Attributes:
        size: columns of a block; 0 if the row is one.
        held: whether scales are known before the first column of a block, so that the others follow in any order.
    """

    size: int
    held: bool = False

    @classmethod
    def of(cls, encoding: Encoding) -> Blocks:
        """The blocks of an encoding."""
        return cls(encoding.block, encoding.kind is Kind.SUPER or not encoding.block)

    def order(self, diagonal: F32) -> NDArray[np.int64]:
        """Columns with this diagonal of H, those with the largest inputs first; blocks stay together."""
        blocks = diagonal.reshape(-1, self.size or diagonal.size)
        places = np.arange(diagonal.size).reshape(blocks.shape)
        if self.held:
            places = np.take_along_axis(places, np.argsort(-blocks, axis=1, kind="stable"), axis=1)
        return places[np.argsort(-blocks.sum(axis=1), kind="stable")].reshape(-1)


def invert(H: torch.Tensor, settings: Settings, *, blocks: Blocks, device: Device) -> InverseHessian:
    """Factor the inverse of a Hessian.

    While H is not positive definite, the dampening is raised tenfold, up to six times.

    Args:
        H: f32 [columns, columns].
        settings: dampening and order of columns.
        blocks: columns that stay together.
        device: to compute on.

    Raises:
        InputError: H is not finite, or stays indefinite.
    """
    import torch

    diagonal = H.diagonal().clone()
    if not bool(diagonal.isfinite().all()):
        raise InputError("the inputs are not finite", "the weights are damaged, or not those of this configuration")
    used = diagonal > 0
    order = blocks.order(diagonal.cpu().numpy()) if settings.act_order else np.arange(len(H))
    mean = float(diagonal[used].mean()) if bool(used.any()) else 1.0
    backwards = torch.from_numpy(order[::-1].copy()).to(H.device)
    dampening_frac = settings.dampening_frac
    for _ in range(_RETRIES):
        lower = H[backwards][:, backwards]
        lower.diagonal()[~used[backwards]] = 1.0  # always 0: these columns' codes do not matter, and correct nothing
        lower.diagonal().add_(dampening_frac * mean)
        if cholesky.cholesky(lower, device):
            break
        dampening_frac = max(dampening_frac * 10, _LEAST_RETRY)
    else:
        raise InputError("the inputs do not determine their Hessian", "give more, and more varied, text")
    upper = lower.flip(0, 1)  # H = V V^T with V upper, so that H^-1 = U^T U with U = V^-1, upper too
    del lower
    Hinv, ridge = cholesky.inverse(upper, device), dampening_frac * mean
    return InverseHessian(H, Hinv, diagonal.cpu().numpy(), order, dampening_frac, ridge)


def quantize(
    W: F32, inverse: InverseHessian, encoding: Encoding, *, portable: bool, device: Device, sweeps: int = 0
) -> Quantized:
    """Codes and scales of a matrix.

    Args:
        W: f32 [rows, columns].
        inverse: inverse Hessian of its inputs.
        encoding: one that method gptq writes.
        portable: choose scales that BF16 and FP16 both hold.
        device: to compute on.
        sweeps: passes of coordinate descent afterwards; types of eight bits get none, for they gain nothing.
    """
    grid = _Grid.of(encoding, portable, W.shape[1])
    sweeps = sweeps if encoding.bits < 8 else 0

    def part(at: int) -> Quantized:
        rows = W[at : at + LANES]
        values = _rows(rows, inverse, grid)
        return descent.improve(rows, inverse.H, values, grid.rule, ridge=inverse.ridge, sweeps=sweeps)

    return _joined(device.map(part, range(0, len(W), LANES)), 0)


@dataclass(frozen=True, slots=True)
class _Grid:
    """The grid that codes are chosen on.

    Attributes:
        encoding: the type.
        block: columns of a block.
        held: see `Blocks`.
        rule: the rule of its compiled loops, see `gptq_kernels.search`.
    """

    encoding: Encoding
    block: int
    held: bool
    rule: tuple[Any, ...]

    @classmethod
    def of(cls, encoding: Encoding, portable: bool, columns: int) -> _Grid:
        """The grid of a type in rows of this many columns."""
        from gemmaq.calibration import gptq_kernels as kernels
        from gemmaq.encodings.kernels import levels_of

        blocks = Blocks.of(encoding)
        stored = kernels.BF16 if encoding.scales == "bf16" else kernels.PORTABLE if portable else kernels.F16
        steps = _BOOK_STEPS if encoding.codebook else _STEPS if blocks.size else _ROW_STEPS
        rule = (
            -1 if encoding.zero is None else encoding.zero,
            (1 << encoding.bits) - 1,
            steps if encoding.bits < 8 else _NO_STEPS,
            stored,
            levels_of(encoding.codebook),
        )
        return cls(encoding, blocks.size or columns, blocks.held, rule)

    def fit(self, x: F32, h: F32) -> Quantized:
        """Scales of a block that are held, for its weights, f32 [columns, rows], and their diagonal of H."""
        from gemmaq.calibration import gptq_kernels as kernels

        if self.encoding.kind is Kind.SUPER:
            weighted = codec(self.encoding).weighted
            assert weighted is not None, "see METHODS"
            found: Quantized = weighted(np.ascontiguousarray(x.T), h)
            return found
        scales, minima = np.empty((2, x.shape[1]), np.float32)
        kernels.search(x, h, self.rule, scales, minima)
        affine = self.encoding.kind is Kind.MINIMA
        return Quantized(_NO_CODES, scales[:, None], minima[:, None] if affine else None)


def _rows(W: F32, inverse: InverseHessian, grid: _Grid) -> Quantized:
    """Codes and scales of a few rows, f32 [rows, columns]."""
    import torch

    from gemmaq.calibration import gptq_kernels as kernels
    from gemmaq.inference.device import aligned

    order, Hinv = inverse.order, inverse.Hinv
    rows, columns = W.shape
    rest = aligned(columns, rows)
    rest.copy_(torch.from_numpy(W[:, order].T))
    rest = rest.to(Hinv.device)
    codes, diagonal = np.empty((columns, rows), np.uint8), inverse.diagonal[order]
    scaled = _Held(grid, order, diagonal, {}) if grid.held else _Searched(grid, order, diagonal, [])
    for start in range(0, columns, _PANEL):
        end = min(start + _PANEL, columns)
        panel = rest[start:end].cpu().numpy()
        weights, group, scales, minima = scaled.before(start, end, rest)
        err = aligned(*panel.shape)
        own = Hinv[start:end, start:end].cpu().numpy()
        kernels.quantize_panel(panel, own, weights, group, grid.rule, codes[start:end], scales, minima, err.numpy())
        if end < columns:
            rest[end:].addmm_(Hinv[start:end, end:].T, err.to(rest.device), alpha=-1)
    places = np.empty_like(order)
    places[order] = np.arange(columns)
    return replace(scaled.values(), codes=codes[places].T.copy())


@dataclass(frozen=True, slots=True)
class _Searched:
    """Scales that are searched for when the turn of their columns comes, inside a panel."""

    grid: _Grid
    order: NDArray[np.int64]
    diagonal: F32
    found: list[tuple[F32, F32]]

    def before(self, start: int, end: int, rest: torch.Tensor) -> tuple[F32, int, F32, F32]:
        """What `quantize_panel` takes for a panel: diagonal of H, columns of a group, room for scales and minima."""
        scales, minima = np.empty((2, (end - start) // self.grid.block, rest.shape[1]), np.float32)
        self.found.append((scales, minima))
        return self.diagonal[start:end], self.grid.block, scales, minima

    def values(self) -> Quantized:
        """Scales of all columns as they lie, without codes."""
        back = np.argsort(self.order[:: self.grid.block])
        scales, minima = (np.concatenate(parts)[back].T.copy() for parts in zip(*self.found, strict=True))
        return Quantized(_NO_CODES, scales, minima if self.grid.encoding.kind is Kind.MINIMA else None)


@dataclass(frozen=True, slots=True)
class _Held:
    """Scales that are chosen before the first column of their block, which is a number of panels or the whole row."""

    grid: _Grid
    order: NDArray[np.int64]
    diagonal: F32
    found: dict[int, Quantized]

    def before(self, start: int, end: int, rest: torch.Tensor) -> tuple[F32, int, F32, F32]:
        """What `quantize_panel` takes for a panel: no diagonal, every column a group with its scale and minimum."""
        block = self.grid.block
        begin = start - start % block
        places = self.order[begin : begin + block]
        first = int(places.min())
        if start == begin:
            back = np.argsort(places)
            here = slice(begin, begin + block)
            self.found[first] = self.grid.fit(rest[here].cpu().numpy()[back], self.diagonal[here][back])
        values = self.found[first]
        groups = (self.order[start:end] - first) // (block // values.scales.shape[1])
        scales = values.scales if values.supers is None else values.scales * values.supers
        minima = np.zeros_like(scales) if values.minima is None else values.minima
        minima = minima if values.super_minima is None else minima * values.super_minima
        return self.diagonal[:0], 1, np.ascontiguousarray(scales.T[groups]), np.ascontiguousarray(minima.T[groups])

    def values(self) -> Quantized:
        """Scales of all columns as they lie, without codes."""
        return _joined([self.found[first] for first in sorted(self.found)], 1)


def _joined(parts: Sequence[Quantized], axis: int) -> Quantized:
    """Codes and scales of several rows or blocks as one."""
    each: dict[str, Any] = {}
    for name in (field.name for field in fields(Quantized)):
        some = [getattr(part, name) for part in parts]
        each[name] = None if some[0] is None else np.concatenate(some, axis)
    return Quantized(**each)
