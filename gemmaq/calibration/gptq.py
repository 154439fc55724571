"""GPTQ: every column's rounding error is made good, as far as possible, by the columns that follow.

It minimises the error of a layer's output on calibration inputs X, |(W - Q) X|^2, which depends on X through the
Hessian H = X X^T alone. Source: Frantar et al., GPTQ, arXiv 2210.17323, whose letters are used here: W the weights
[rows, columns], H the Hessian, Hinv the upper Cholesky factor of its inverse, err the rounding errors divided by Hinv's
diagonal. Unlike the paper, scales of a group are searched for when its turn comes, on the weights as corrected by
then, each column weighed by its diagonal entry of H.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gemmaq.calibration import cholesky
from gemmaq.encodings import Encoding, Kind, Quantized
from gemmaq.errors import InputError

if TYPE_CHECKING:
    import torch

    from gemmaq.encodings import F32
    from gemmaq.inference.device import Device

_PANEL = 256
"""Columns corrected one by one before all later columns get the errors of the panel in one matrix product."""
_LANES = 64
"""Rows quantized together by one worker, whatever the number of threads."""
_STEPS = 9
"""Candidate scales to either side of the first."""
_RETRIES = 6
_LEAST_RETRY = 1e-4


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of GPTQ.

    Attributes:
        dampening_frac: added to the diagonal of H, as a fraction of its mean.
        act_order: quantize the groups of columns with the largest inputs first, instead of columns as they lie.
    """

    dampening_frac: float = 0.01
    act_order: bool = True


@dataclass(frozen=True, slots=True)
class InverseHessian:
    """The inverse Hessian of some inputs, factored once for all matrices that share these inputs.

    Attributes:
        Hinv: f32 [columns, columns], upper triangular, Hinv^T Hinv = H^-1 with columns in `order`.
        diagonal: f32 [columns], diagonal of H without dampening, columns as they lie.
        order: i64 [columns], the order in which columns are quantized.
        dampening_frac: fraction that was needed for H to be positive definite.
    """

    Hinv: torch.Tensor
    diagonal: F32
    order: np.ndarray
    dampening_frac: float


def invert(H: torch.Tensor, settings: Settings, *, group: int, device: Device) -> InverseHessian:
    """Factor the inverse of a Hessian.

    While H is not positive definite, the dampening is raised tenfold, up to six times.

    Args:
        H: f32 [columns, columns]; overwritten.
        settings: dampening and order of columns.
        group: columns that share a scale.
        device: to compute on.

    Raises:
        InputError: H is not finite, or stays indefinite.
    """
    import torch

    diagonal = H.diagonal().clone()
    if not bool(diagonal.isfinite().all()):
        raise InputError("the inputs are not finite", "the weights are damaged, or not those of this configuration")
    used = diagonal > 0
    order = _order(diagonal.cpu().numpy(), settings.act_order, group)
    H.diagonal()[~used] = 1.0  # inputs always 0: the codes of these columns do not matter, and correct nothing
    mean = float(diagonal[used].mean()) if bool(used.any()) else 1.0
    backwards = torch.from_numpy(order[::-1].copy()).to(H.device)
    dampening_frac = settings.dampening_frac
    for _ in range(_RETRIES):
        lower = H[backwards][:, backwards]
        lower.diagonal().add_(dampening_frac * mean)
        if cholesky.cholesky(lower, device):
            break
        dampening_frac = max(dampening_frac * 10, _LEAST_RETRY)
    else:
        raise InputError("the inputs do not determine their Hessian", "give more, and more varied, text")
    upper = lower.flip(0, 1)  # H = V V^T with V upper, so that H^-1 = U^T U with U = V^-1, upper too
    del lower
    return InverseHessian(cholesky.inverse(upper, device), diagonal.cpu().numpy(), order, dampening_frac)


def _order(diagonal: F32, act_order: bool, group: int) -> np.ndarray:
    """Columns in the order in which they are quantized; groups stay together."""
    if not act_order:
        return np.arange(diagonal.size)
    groups = np.argsort(-diagonal.reshape(-1, group).sum(axis=1), kind="stable")
    return (groups[:, None] * group + np.arange(group)).reshape(-1)


def quantize(W: F32, inverse: InverseHessian, encoding: Encoding, *, portable: bool, device: Device) -> Quantized:
    """Codes and scales of a matrix.

    Args:
        W: f32 [rows, columns].
        inverse: inverse Hessian of its inputs.
        encoding: one that method gptq writes.
        portable: choose scales that BF16 and FP16 both hold.
        device: to compute on.
    """
    starts = range(0, len(W), _LANES)
    parts = device.map(lambda at: _rows(W[at : at + _LANES], inverse, encoding, portable), starts)
    codes, scales, minima = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Quantized(codes, scales, minima if encoding.kind is Kind.MINIMA else None)


def _rows(W: F32, inverse: InverseHessian, encoding: Encoding, portable: bool) -> tuple[np.ndarray, F32, F32]:
    """Codes, scales and minima of a few rows, f32 [rows, columns]."""
    import torch

    from gemmaq.calibration import gptq_kernels as kernels
    from gemmaq.inference.device import aligned

    group, order, Hinv = encoding.block, inverse.order, inverse.Hinv
    rows, columns = W.shape
    rest = aligned(columns, rows)
    rest.copy_(torch.from_numpy(W[:, order].T))
    rest = rest.to(Hinv.device)
    codes = np.empty((columns, rows), np.uint8)
    scales, minima = np.empty((2, columns // group, rows), np.float32)
    diagonal = inverse.diagonal[order]
    stored = kernels.BF16 if encoding.scales == "bf16" else kernels.PORTABLE if portable else kernels.F16
    for start in range(0, columns, _PANEL):
        end = min(start + _PANEL, columns)
        panel = rest[start:end].cpu().numpy()
        err = aligned(*panel.shape)
        kernels.quantize_panel(
            panel,
            Hinv[start:end, start:end].cpu().numpy(),
            diagonal[start:end],
            group,
            -1 if encoding.zero is None else encoding.zero,
            (1 << encoding.bits) - 1,
            _STEPS if encoding.bits < 8 else 0,
            stored,
            codes[start:end],
            scales[start // group : end // group],
            minima[start // group : end // group],
            err.numpy(),
        )
        if end < columns:
            rest[end:].addmm_(Hinv[start:end, end:].T, err.to(rest.device), alpha=-1)
    places = np.empty_like(order)
    places[order] = np.arange(columns)
    at = places[::group] // group
    return codes[places].T.copy(), scales[at].T.copy(), minima[at].T.copy()
