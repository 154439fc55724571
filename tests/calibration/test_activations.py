"""Inputs of the matrices of a layer, and their products."""

from __future__ import annotations

import numpy as np
import pytest

from calibrating import MATRICES, naive_inputs, opened
from damage import SMALL
from gemmaq.calibration.activations import mirror
from gemmaq.calibration.hessians import add_products
from gemmaq.models.gemma3.names import input_sites

pytestmark = pytest.mark.usefixtures("torch_and_transformers")


def test_sites_are_the_inputs_that_matrices_share(model, checkpoint, tokens):
    inputs = naive_inputs(model, tokens)
    assert len(inputs) == MATRICES
    sharing = {part: site for site, parts in input_sites(SMALL, 0).items() for part in parts}
    assert sorted(f"model.layers.{n}.{part}.weight" for n in range(2) for part in sharing) == sorted(inputs)
    for part, site in sharing.items():
        np.testing.assert_array_equal(inputs[f"model.layers.1.{part}.weight"], inputs[f"model.layers.1.{site}.weight"])
    four = [inputs[f"model.layers.1.{site}.weight"] for site in input_sites(SMALL, 1)]
    assert all(a.shape != b.shape or (a != b).any() for n, a in enumerate(four) for b in four[:n])


def test_products_of_many_columns_are_whole(checkpoint):
    """More columns than a panel has, and no multiple of it."""
    import torch

    x = torch.from_numpy(np.random.default_rng(1).standard_normal((40, 1100)).astype(np.float32))
    with opened(checkpoint, 3) as net:
        hessian = torch.zeros(1100, 1100)
        for part in (x[:15], x[15:]):
            add_products(hessian, part, net.device)
    np.testing.assert_allclose(mirror(hessian).numpy(), (x.double().T @ x.double()).numpy(), atol=1e-4)
