"""Grids of a checkpoint: looked for only where a request asks, on matrices stored as floats."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gemmaq.checkpoint import Checkpoint, plain
from gemmaq.encodings import ENCODINGS
from gemmaq.files.span import FileSpan
from gemmaq.methods.lattice import Verdict
from gemmaq.models.roles import Place, Role
from gemmaq.planning.recipe import of
from gemmaq.planning.request import Request
from gemmaq.planning.survey import detect_grids, fits_for
from grids import extremum, wide
from synthetic import bf16


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
    assert bool(fits_for(checkpoint, [Request(of(quant, method=method), ("gguf",))])) == looked
    assert not fits_for(replace(checkpoint, weights_here=False), [Request(of(quant, method=method), ("gguf",))])


def with_tensor(checkpoint: Checkpoint, path: Path, x: np.ndarray, role: Role) -> Checkpoint:
    """The checkpoint with a single tensor, whose weights are x."""
    path.write_bytes(bf16(x.astype(np.float32)).tobytes())
    tensor = plain("x", x.shape, ENCODINGS["bf16"], span=FileSpan.of(path), offset=0, place=Place(role, 0, "x", "x"))
    return replace(checkpoint, tensors={"x": tensor})


def ordinary(*shape: int) -> np.ndarray:
    return wide(bf16(np.random.default_rng(0).standard_normal(shape, np.float32) * np.float32(0.03)))


def trained(*shape: int) -> np.ndarray:
    scales, codes = extremum(ordinary(*shape))
    return (scales[:, None] * np.clip(codes, -8, 7)).reshape(shape)


def test_a_stack_is_judged_expert_by_expert(checkpoint: Checkpoint, tmp_path: Path) -> None:
    x = trained(16, 48, 96)
    off = [0, 7, 15]
    x[off] = ordinary(16, 48, 96)[off]
    fit = detect_grids(with_tensor(checkpoint, tmp_path / "stack", x, Role.EXPERTS))["x"]
    assert [n for n, expert in enumerate(fit.experts) if expert.verdict is Verdict.NONE] == off
    assert fit.experts_with(Verdict.WHOLE) == 13 and fit.verdict is Verdict.PARTIAL and fit.rule == "extremum/-8"
    assert 0.06 < fit.distance < 0.1


@pytest.mark.parametrize("role", [Role.EMBEDDING, Role.LAYER_EMBEDDING])
def test_a_table_is_judged_by_rows_from_all_over_it(checkpoint: Checkpoint, tmp_path: Path, role: Role) -> None:
    x = trained(640, 128)
    path = tmp_path / "table"
    assert detect_grids(with_tensor(checkpoint, path, x, role))["x"].verdict is Verdict.WHOLE
    x[:2] = x[-2:] = ordinary(4, 128)[:2]  # tokens that no text has
    assert detect_grids(with_tensor(checkpoint, path, x, role))["x"].verdict is Verdict.WHOLE
    x[320:] = ordinary(320, 128)
    fit = detect_grids(with_tensor(checkpoint, path, x, role))["x"]
    assert fit.verdict is Verdict.PARTIAL and fit.share == 0.5


def test_a_table_of_layers_has_a_scale_for_each_of_them(checkpoint: Checkpoint, tmp_path: Path) -> None:
    slices = ordinary(640, len(checkpoint.config.layers), 64)
    steps = np.abs(slices).max(axis=2, keepdims=True) / np.float32(7)
    x = (np.rint(slices / steps) * steps).reshape(640, -1)
    for role, rule in ((Role.LAYER_EMBEDDING, "per channel"), (Role.EMBEDDING, "free scale")):
        assert detect_grids(with_tensor(checkpoint, tmp_path / "table", x, role))["x"].rule == rule


def test_a_table_of_few_rows(checkpoint: Checkpoint, tmp_path: Path) -> None:
    fit = detect_grids(with_tensor(checkpoint, tmp_path / "table", trained(5, 128), Role.EMBEDDING))["x"]
    assert fit.on_grid and fit.blocks == 20
