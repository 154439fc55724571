"""Sizes and summaries of a plan."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from gemmaq.checkpoint import Checkpoint
from gemmaq.encodings import ENCODINGS
from gemmaq.methods import Importance
from gemmaq.models.arrangements import permuted
from gemmaq.models.roles import Role
from gemmaq.planning.plan import Plan

Planner = Callable[..., Plan]


def test_sizes_add_up(plan: Planner, checkpoint: Checkpoint) -> None:
    planned = plan("q4_0", embedding="q8_0")
    sizes = {Role.MATRIX: 18, Role.EMBEDDING: 34, Role.NORM: 128}  # bytes of 32 weights
    expected = sum(sizes[t.place.role] * t.elements // 32 for t in checkpoint.tensors.values())
    assert planned.tensor_bytes == sum(t.nbytes for t in planned.tensors) == expected
    assert planned.elements == checkpoint.parameters
    assert planned.bits_per_weight == 8 * expected / checkpoint.parameters
    assert planned.counts == {"q4_0": 14, "f32": 13, "q8_0": 1}


def test_labels_and_file_types(plan: Planner) -> None:
    for quant in ("q4_0", "bf16", "iq4_nl"):
        planned = plan(quant)
        assert (planned.label, planned.body) == (quant.upper(), ENCODINGS[quant])
        assert planned.file_type == ENCODINGS[quant].file_type
    assert plan("q4_k_m").label == "Q4_K_M"
    assert plan("auto").label == "Q4_0"


def test_a_quantized_source_decides_the_label(plan: Planner, checkpoint: Checkpoint) -> None:
    tensors = {
        name: replace(tensor, encoding=ENCODINGS["q5_0"]) if tensor.place.role is Role.MATRIX else tensor
        for name, tensor in checkpoint.tensors.items()
    }
    kept = plan("auto", source=replace(checkpoint, tensors=tensors))
    assert (kept.label, kept.file_type) == ("Q5_0", ENCODINGS["q5_0"].file_type)


def test_codes_and_bytes_that_are_taken_over(plan: Planner) -> None:
    matrix = next(t for t in plan("bf16").tensors if t.source.place.role is Role.MATRIX)
    assert matrix.copied
    norm = next(t for t in plan("bf16").tensors if t.source.place.role is Role.NORM)
    assert not norm.copied
    q4 = replace(matrix, source=replace(matrix.source, encoding=ENCODINGS["q4_0"]), encoding=ENCODINGS["q4_0"])
    assert q4.keeps_codes and q4.copied
    assert not replace(q4, encoding=ENCODINGS["q5_0"]).keeps_codes
    assert not replace(q4, shift=1.0).keeps_codes
    pieces = (*q4.pieces, *q4.pieces)
    assert replace(q4, pieces=pieces).keeps_codes and not replace(q4, pieces=pieces).copied


def test_a_calibrated_tensor_is_complete_once_it_has_what_it_needs(plan: Planner) -> None:
    tensor = next(t for t in plan("q4_0", method="importance").tensors if t.source.place.role is Role.MATRIX)
    assert not tensor.is_complete
    columns = Importance(np.ones(tensor.source.columns, np.float32))
    assert replace(tensor, choice=replace(tensor.choice, importance=columns)).is_complete
    solved = replace(tensor, solved=tensor.source)
    assert solved.is_complete and solved.stored is tensor.source


def test_axes_of_a_convolution(plan: Planner) -> None:
    tensor = plan("bf16").tensors[0]
    kernel = replace(
        tensor, source=replace(tensor.source, shape=(8, 3, 4, 5)), arrangement=permuted((8, 3, 4, 5), (0, 2, 3, 1))
    )
    assert kernel.shape == (8, 4, 5, 3) and kernel.moved and not kernel.copied
