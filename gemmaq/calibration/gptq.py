"""Error feedback (GPTQ): every column's rounding error is made good, as far as possible, by the columns after it.

What is minimised is the error of a layer's output on calibration inputs X, |(W - Q) X|^2, which the Hessian X X^T of
the inputs determines. Source: Frantar et al., GPTQ, arXiv 2210.17323. The scales of a group are chosen when its turn
comes, for the weights as the feedback has left them, by a search weighted with the mean squares of the inputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gemmaq.calibration import cholesky
from gemmaq.encodings import Encoding, Quantized
from gemmaq.errors import InputError

if TYPE_CHECKING:
    import torch

    from gemmaq.encodings import F32
    from gemmaq.inference.device import Device

_PANEL = 256
"""Columns that are corrected one by one before the rest gets their errors in one product."""
_LANES = 64
"""Rows that are worked off together, whatever the number of threads."""
_STEPS = 9
_RETRIES = 6
_LEAST_RETRY = 1e-4


@dataclass(frozen=True, slots=True)
class Settings:
    """How the feedback is kept in bounds.

    Attributes:
        damping: added to the diagonal of the Hessian, as a share of its mean.
        order: `importance` takes the groups of columns with the largest inputs first, `columns` as they lie.
    """

    damping: float = 0.01
    order: str = "importance"


@dataclass(frozen=True, slots=True)
class Feedback:
    """What the Hessian of a layer's inputs says, worked out once for all matrices that share these inputs.

    Attributes:
        factor: f32 [columns, columns], upper triangular U with U^T U the inverse of the Hessian.
        importance: f32 [columns], the diagonal of the Hessian.
        order: i64 [columns], the order in which columns are taken.
        damping: that it took.
    """

    factor: torch.Tensor
    importance: F32
    order: np.ndarray
    damping: float


def feedback(hessian: torch.Tensor, settings: Settings, group: int, device: Device) -> Feedback:
    """Factor a Hessian.

    Where it is not positive definite the damping is raised tenfold, again and again.

    Args:
        hessian: f32 [columns, columns]; not kept, but overwritten.
        settings: damping and order.
        group: columns that share a scale.
        device: Device that computes.

    Raises:
        InputError: it is not finite, or cannot be factored.
    """
    import torch

    importance = hessian.diagonal().clone()
    if not bool(importance.isfinite().all()):
        raise InputError("the inputs are not finite", "the weights are damaged, or not those of this configuration")
    alive = importance > 0
    order = _order(importance.cpu().numpy(), settings.order, group)
    hessian.diagonal()[~alive] = 1.0  # no input ever: its codes do not matter, and correct nothing
    mean = float(importance[alive].mean()) if bool(alive.any()) else 1.0
    backwards = torch.from_numpy(order[::-1].copy()).to(hessian.device)
    damping = settings.damping
    for _ in range(_RETRIES):
        lower = hessian[backwards][:, backwards]
        lower.diagonal().add_(damping * mean)
        if cholesky.cholesky(lower, device):
            break
        damping = max(damping * 10, _LEAST_RETRY)
    else:
        raise InputError("the inputs do not determine their Hessian", "give more, and more varied, text")
    upper = lower.flip(0, 1)  # H = V V^T with V upper, so that the inverse is U^T U with U = V^-1, upper too
    del lower
    return Feedback(cholesky.inverse(upper, device), importance.cpu().numpy(), order, damping)


def _order(importance: F32, kind: str, group: int) -> np.ndarray:
    """Columns in the order they are taken; groups stay together."""
    if kind == "columns":
        return np.arange(importance.size)
    groups = np.argsort(-importance.reshape(-1, group).sum(axis=1), kind="stable")
    return (groups[:, None] * group + np.arange(group)).reshape(-1)


def solve(weights: F32, known: Feedback, encoding: Encoding, portable: bool, device: Device) -> Quantized:
    """Codes and scales of a matrix.

    Args:
        weights: f32 [rows, columns].
        known: of its inputs.
        encoding: one that method gptq writes.
        portable: scales that BF16 and FP16 both hold.
        device: Device that computes.
    """
    chunks = range(0, len(weights), _LANES)
    parts = device.map(lambda at: _rows(weights[at : at + _LANES], known, encoding, portable), chunks)
    codes, scales, minima = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Quantized(codes, scales, minima if encoding.zero is None else None)


def _rows(weights: F32, known: Feedback, encoding: Encoding, portable: bool) -> tuple[np.ndarray, F32, F32]:
    """The same for some rows."""
    import torch

    from gemmaq.calibration import gptq_kernels as kernels
    from gemmaq.inference.device import aligned

    group, zero = encoding.block, encoding.zero
    rows, columns = weights.shape
    rest = aligned(columns, rows)
    rest.copy_(torch.from_numpy(weights[:, known.order].T))
    rest = rest.to(known.factor.device)
    codes = np.empty((columns, rows), np.uint8)
    scales, minima = np.empty((2, columns // group, rows), np.float32)
    importance = known.importance[known.order]
    top = (1 << encoding.bits) - 1
    kind = kernels.BF16 if encoding.scales == "bf16" else kernels.PORTABLE if portable else kernels.F16
    for start in range(0, columns, _PANEL):
        end = min(start + _PANEL, columns)
        x = rest[start:end].cpu().numpy()
        errors = aligned(*x.shape)
        kernels.solve_panel(
            x,
            known.factor[start:end, start:end].cpu().numpy(),
            importance[start:end],
            group,
            -1 if zero is None else zero,
            top,
            _STEPS if encoding.bits < 8 else 0,
            kind,
            codes[start:end],
            scales[start // group : end // group],
            minima[start // group : end // group],
            errors.numpy(),
        )
        if end < columns:
            rest[end:].addmm_(known.factor[start:end, end:].T, errors.to(rest.device), alpha=-1)
    lies = np.empty_like(known.order)
    lies[known.order] = np.arange(columns)
    at = lies[::group] // group
    return codes[lies].T.copy(), scales[at].T.copy(), minima[at].T.copy()
