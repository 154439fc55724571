"""What a user is told of a plan before it is carried out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from gemmaq.checkpoint import Checkpoint
from gemmaq.encodings import ENCODINGS
from gemmaq.methods.lattice import FIVE_BITS, GridFit
from gemmaq.models.roles import Role
from gemmaq.planning.plan import Plan

Planner = Callable[..., Plan]


def fits(checkpoint: Checkpoint, rule: str | None, *roles: Role) -> Mapping[str, GridFit]:
    names = [tensor.name for tensor in checkpoint.tensors.values() if tensor.place.role in roles]
    return dict.fromkeys(names, GridFit(rule, 1.0, 0.0, 99))


def words(warnings: tuple[str, ...], *parts: str) -> None:
    assert len(warnings) == 1 and all(part in warnings[0] for part in parts), warnings


def test_an_ordinary_conversion_needs_no_advice(plan: Planner) -> None:
    assert plan("q4_0").warnings == ()


def test_a_second_quantization(plan: Planner, checkpoint: Checkpoint) -> None:
    tensors = {
        name: replace(tensor, encoding=ENCODINGS["q5_0"]) if tensor.place.role is Role.MATRIX else tensor
        for name, tensor in checkpoint.tensors.items()
    }
    source = replace(checkpoint, tensors=tensors)
    words(plan("q4_0", source=source).warnings, "14 tensors", "second time", "Q5_0")
    assert plan("q5_0", source=source).warnings == ()


@pytest.mark.parametrize(("quant", "parts"), [("q8_0", ("14 tensors", "int4 grid", "Q8_0")), ("q4_0", ())])
def test_a_grid_that_is_lost(plan: Planner, checkpoint: Checkpoint, quant: str, parts: tuple[str, ...]) -> None:
    warnings = plan(quant, embedding="q8_0", fits=fits(checkpoint, "absmax/7", Role.MATRIX)).warnings
    if parts:
        words(warnings, *parts)
    else:
        assert warnings == ()


def test_a_grid_of_the_embedding(plan: Planner, checkpoint: Checkpoint) -> None:
    on_grid = fits(checkpoint, "absmax/7", Role.MATRIX, Role.EMBEDDING)
    words(plan("q4_0", embedding="q8_0", fits=on_grid).warnings, "--embedding q4_0")


def test_lattice_off_the_grid(plan: Planner, checkpoint: Checkpoint) -> None:
    off = fits(checkpoint, None, Role.MATRIX, Role.EMBEDDING)
    assert any("no int4 grid" in warning for warning in plan("q4_0", method="lattice", fits=off).warnings)


def test_weights_of_a_quantized_file(plan: Planner, checkpoint: Checkpoint) -> None:
    words(plan("q4_0", fits=fits(checkpoint, FIVE_BITS, Role.MATRIX)).warnings, "14 tensors", FIVE_BITS)


def test_a_name_that_says_qat(plan: Planner, checkpoint: Checkpoint) -> None:
    named = replace(checkpoint, name="gemma-3-4b-it-qat")
    words(plan("q4_0", source=named, fits=fits(checkpoint, None, Role.MATRIX)).warnings, "QAT")
    assert plan("q4_0", source=named).warnings == ()


def test_notes_of_the_source_come_first(plan: Planner, checkpoint: Checkpoint) -> None:
    assert plan("q4_0", source=replace(checkpoint, notes=("odd",))).warnings == ("odd",)
