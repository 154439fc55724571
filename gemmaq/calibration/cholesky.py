"""Cholesky factor and triangular inverse of a large matrix, by several workers, the same bits with any number."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from gemmaq.inference.device import Device

_BLOCK = 512
_ROWS = 256


def cholesky(matrix: torch.Tensor, device: Device) -> bool:
    """Replace the lower triangle of a symmetric matrix, f32 [n, n], by its Cholesky factor; the rest is lost.

    Returns:
        Whether the matrix is positive definite; one that is not is left half overwritten.
    """
    import torch

    for start in range(0, len(matrix), _BLOCK):
        end = min(start + _BLOCK, len(matrix))
        corner, failed = torch.linalg.cholesky_ex(matrix[start:end, start:end])
        if int(failed) or not bool(corner.isfinite().all()):
            return False
        matrix[start:end, start:end] = corner

        def below(at: int, start: int = start, end: int = end, corner: torch.Tensor = corner) -> None:
            rows = matrix[at : at + _ROWS, start:end]
            rows.copy_(torch.linalg.solve_triangular(corner.mT, rows, upper=True, left=False))

        def rest(at: int, start: int = start, end: int = end) -> None:
            stop = min(at + _ROWS, len(matrix))
            matrix[at:stop, end:stop].addmm_(matrix[at:stop, start:end], matrix[end:stop, start:end].mT, alpha=-1)

        device.map(below, range(end, len(matrix), _ROWS))
        device.map(rest, range(end, len(matrix), _ROWS))
    return True


def inverse(upper: torch.Tensor, device: Device) -> torch.Tensor:
    """The inverse of an upper triangular matrix, f32 [n, n], upper triangular too."""
    import torch

    inverted = torch.zeros_like(upper)

    def columns(at: int) -> None:
        """Block by block from the diagonal upwards: of a large triangle torch would make a copy for every worker."""
        end = min(at + _BLOCK, len(upper))
        for low in range(at, -1, -_BLOCK):
            high = min(low + _BLOCK, end)
            if low == at:
                right = torch.eye(end - at, dtype=upper.dtype, device=upper.device)
            else:
                right = -(upper[low:high, high:end] @ inverted[high:end, at:end])
            inverted[low:high, at:end] = torch.linalg.solve_triangular(upper[low:high, low:high], right, upper=True)

    device.map(columns, range(0, len(upper), _BLOCK))
    return inverted
