"""Grids of a checkpoint: looked for only where a request asks, on matrices stored as floats."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gemmaq.checkpoint import Checkpoint
from gemmaq.encodings import ENCODINGS
from gemmaq.models.roles import Role
from gemmaq.planning.recipe import of
from gemmaq.planning.request import Request
from gemmaq.planning.survey import detect_grids, fits_for


def test_ordinary_weights_lie_on_no_grid(checkpoint: Checkpoint) -> None:
    fits = detect_grids(checkpoint)
    assert set(fits) == {t.name for t in checkpoint.tensors.values() if t.place.role.is_quantizable}
    assert not any(fit.on_grid for fit in fits.values())


def test_quantized_tensors_are_passed_over(checkpoint: Checkpoint) -> None:
    tensors = {
        name: replace(tensor, encoding=ENCODINGS["q8_0"]) if tensor.place.role is Role.MATRIX else tensor
        for name, tensor in checkpoint.tensors.items()
    }
    assert len(detect_grids(replace(checkpoint, tensors=tensors))) == 1


@pytest.mark.parametrize(
    ("quant", "method", "looked"),
    [("q4_0", "auto", True), ("q4_0", "lattice", True), ("q4_0", "nearest", False), ("bf16", "auto", False)],
)
def test_weights_are_read_only_where_a_method_asks(
    checkpoint: Checkpoint, quant: str, method: str, looked: bool
) -> None:
    assert bool(fits_for(checkpoint, Request(of(quant, method=method), ("gguf",)))) == looked
    assert not fits_for(replace(checkpoint, weights_here=False), Request(of(quant, method=method), ("gguf",)))
