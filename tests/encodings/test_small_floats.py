"""Numbers of four and eight bits are those of other libraries."""

from __future__ import annotations

import numpy as np
import pytest

from gemmaq.encodings.small_floats import E2M1, E4M3, E8M0
from oracles import need


def test_four_bits_hold_these_numbers() -> None:
    assert E2M1 == (0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6)


@pytest.mark.oracle
def test_eight_bits_hold_the_numbers_of_torch(require) -> None:
    need(require, "torch")
    import torch

    every = torch.arange(256, dtype=torch.uint8)
    for ours, theirs in ((E4M3, torch.float8_e4m3fn), (E8M0, torch.float8_e8m0fnu)):
        np.testing.assert_array_equal(np.array(ours, np.float32), every.view(theirs).to(torch.float32).numpy())
