"""What a user is told of a plan before it is carried out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from gemmaq import containers
from gemmaq.checkpoint import Checkpoint
from gemmaq.encodings import ENCODINGS
from gemmaq.methods.lattice import GridFit, together
from gemmaq.methods.lattice_grids import FIVE_BITS
from gemmaq.models.roles import Place, Role
from gemmaq.planning.plan import Plan
from gemmaq.planning.planner import make_plan
from gemmaq.planning.recipe import of
from gemmaq.planning.request import Request

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


def test_a_grid_of_the_layer_embedding(plan: Planner, checkpoint: Checkpoint) -> None:
    table = checkpoint.embedding
    tensors = dict(checkpoint.tensors) | {table.name: replace(table, place=Place(Role.LAYER_EMBEDDING))}
    source = replace(checkpoint, tensors=tensors)
    on_grid = fits(source, "absmax/7", Role.LAYER_EMBEDDING)
    *_, said = plan("q4_0", source=source, fits=on_grid).warnings
    assert said.startswith("the per-layer embedding lies on an int4 grid too: --ple-type q4_0")


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
    assert plan("q4_0", source=replace(checkpoint, notes=("odd",))).notes == ("odd",)


def test_types_that_do_not_fit_are_one_note_whatever_the_rows(plan: Planner) -> None:
    notes = [note for note in plan("q5_k").notes if " instead of Q5_K" in note]
    assert len(notes) == 1 and " do not fit rows of 64 and 96" in notes[0]


def test_what_is_left_out_unasked_is_a_warning(plan: Planner, checkpoint: Checkpoint) -> None:
    made = plan("q4_0", source=replace(checkpoint, notes=("odd",), losses=("no classifier",)))
    assert made.warnings == ("no classifier",) and made.notes == ("odd",)


def test_tensors_partly_on_the_grid(plan: Planner, checkpoint: Checkpoint) -> None:
    names = [tensor.name for tensor in checkpoint.tensors.values() if tensor.place.role is Role.MATRIX]
    whole, none = GridFit("extremum/-8", 1.0, 0.001, 100), GridFit(None, 0.0, 0.0, 100, 0.084)
    partial = GridFit("extremum/-8", 0.9, 0.001, 100, 0.084)
    matrices = dict.fromkeys(names, whole) | {names[0]: partial, names[1]: partial}
    words(
        plan("q4_0", fits=matrices).warnings,
        "2 tensors lie only partly on an int4 grid: 10% of the blocks are off it and rounded to nearest (8.4% away)",
    )
    stacks = dict.fromkeys(names, whole) | {names[0]: together([whole, none, whole]), names[1]: together([none, whole])}
    words(
        plan("q4_0", fits=stacks).warnings,
        "2 of 5 experts of 2 tensors lie on no int4 grid: they are rounded to nearest (8.4% away)",
    )
    mixed = dict.fromkeys(names, whole) | {names[0]: together([whole, partial])}
    words(plan("q4_0", fits=mixed).warnings, "1 of 2 experts of 1 tensor lie only partly on an int4 grid")
    assert plan("q4_0", fits=dict.fromkeys(names, whole)).warnings == ()


def test_types_of_per_layer_embeddings_that_the_model_has_not(plan: Planner, checkpoint: Checkpoint) -> None:
    for option in ("ple_type", "ple_proj_type"):
        request = Request(of("q8_0", **{option: "q4_0"}), ("gguf",))
        warnings = make_plan(checkpoint, request, containers.writer("gguf").FORMAT).warnings
        words(warnings, "no per-layer embeddings")
    assert "per-layer" not in " ".join(plan("q8_0").warnings)
