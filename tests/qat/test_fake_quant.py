"""Fake quantization: gradients pass straight through, activations are rounded as llama.cpp does."""

from __future__ import annotations

import numpy as np
import pytest

from gemmaq.encodings import ENCODINGS
from gemmaq.methods import Choice, nearest

torch = pytest.importorskip("torch")

from gemmaq.qat import fake_quant, grids  # noqa: E402

GRID = grids.GRIDS["q4_0"]


def test_forward_is_the_grid() -> None:
    latent = torch.randn(6, 64)
    assert torch.equal(fake_quant.weights(latent, GRID, torch.float32), grids.values(GRID, latent))


def test_gradients_are_those_of_the_surrogate() -> None:
    """The surrogate is x + (Q(x0) - x0) with the bracket held fast; f32 differences of a smooth function of it."""
    torch.manual_seed(0)
    start, probe = torch.randn(6, 64) * 0.05, torch.randn(6, 64, dtype=torch.float64)

    def objective(weights: torch.Tensor) -> torch.Tensor:
        return torch.sin(20 * weights.double() * probe).sum()

    latent = start.clone().requires_grad_()
    objective(fake_quant.weights(latent, GRID, torch.float32)).backward()
    assert latent.grad is not None
    offset = (grids.values(GRID, start) - start).double()
    step = 1e-6
    for row, column in [(0, 0), (2, 17), (5, 63), (3, 31)]:
        at = torch.zeros(6, 64, dtype=torch.float64)
        at[row, column] = step
        up, down = (objective((start.double() + sign * at) + offset) for sign in (1, -1))
        assert float((up - down) / (2 * step)) == pytest.approx(float(latent.grad[row, column]), rel=2e-4, abs=1e-4)


def test_activations_are_rounded_as_llama_cpp_does() -> None:
    x = torch.randn(5, 96) * 3
    x[0, :32] = 0
    x[1, 0], x[1, 1] = 127.0, 0.5  # a tie: away from zero
    x[1, 2:32] = 0
    q8_0 = ENCODINGS["q8_0"]
    values = nearest.quantize(x.numpy(), q8_0, Choice("nearest"))
    scales = np.repeat(values.scales.astype(np.float16).astype(np.float32), 32, axis=1)
    expected = scales * (values.codes.astype(np.float32) - 128)
    assert np.array_equal(fake_quant.q8_0(x).numpy(), expected)
    given_x = x.clone().requires_grad_()
    (fake_quant.activations(given_x) * 3).sum().backward()
    assert torch.equal(given_x.grad, torch.full_like(x, 3))
