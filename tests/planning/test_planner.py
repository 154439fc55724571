"""What every tensor becomes: its name, type, method and scales, by container and request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

import wide_models
from gemmaq.checkpoint import Checkpoint
from gemmaq.errors import InputError, UsageError
from gemmaq.methods.lattice import GridFit, together
from gemmaq.methods.lattice_grids import FIVE_BITS
from gemmaq.models.roles import Role
from gemmaq.planning.plan import Plan, PlannedTensor
from gemmaq.sources.open import open_source

Planner = Callable[..., Plan]
ON_GRID, OFF_GRID = GridFit("absmax/7", 1.0, 0.0, 99), GridFit(None, 0.0, 1.0, 99)


def by_role(plan: Plan, role: Role) -> list[PlannedTensor]:
    return [tensor for tensor in plan.tensors if tensor.source.place.role is role]


@pytest.mark.parametrize(("container", "shift", "vector"), [("gguf", 1.0, "f32"), ("mlx", 0.0, "bf16")])
def test_names_and_norms_are_those_of_the_container(
    plan: Planner, checkpoint: Checkpoint, container: str, shift: float, vector: str
) -> None:
    planned = plan("q4_0", container)
    assert len(planned.tensors) == len(checkpoint.tensors)
    to_gguf = checkpoint.family.names.to_gguf
    for tensor in planned.tensors:
        name = tensor.source.name
        assert tensor.name == (to_gguf(name) if container == "gguf" else name)
    for norm in by_role(planned, Role.NORM):
        assert (norm.shift, norm.encoding.name, norm.choice.method) == (shift, vector, "nearest")
    assert all(tensor.shift == 0 for tensor in by_role(planned, Role.MATRIX))


def test_auto_takes_lattice_for_tensors_on_a_grid(plan: Planner, checkpoint: Checkpoint) -> None:
    matrices = [t.name for t in checkpoint.tensors.values() if t.place.role is Role.MATRIX]
    fits = dict.fromkeys(matrices, OFF_GRID) | {
        matrices[0]: ON_GRID,
        matrices[1]: GridFit(FIVE_BITS, 1.0, 0.0, 99),
    }
    methods = {t.source.name: t.choice.method for t in plan("q4_0", fits=fits).tensors}
    assert [name for name, method in methods.items() if method == "lattice"] == [matrices[0]]
    assert {t.choice.method for t in plan("q5_0", fits=fits).tensors} == {"nearest"}


@pytest.mark.parametrize("fit", [GridFit("free scale", 0.1, 0.0, 99, 0.08), together([ON_GRID, OFF_GRID, OFF_GRID])])
def test_auto_takes_lattice_for_tensors_partly_on_a_grid(plan: Planner, checkpoint: Checkpoint, fit: GridFit) -> None:
    fits = dict.fromkeys([t.name for t in checkpoint.tensors.values() if t.place.role is Role.MATRIX], fit)
    assert {t.choice.method for t in by_role(plan("q4_0", fits=fits), Role.MATRIX)} == {"lattice"}


@pytest.mark.parametrize(
    ("trained", "fit", "container", "quant", "expected"),
    [
        (True, ON_GRID, "gguf", "q4_0", "q4_0"),
        (True, ON_GRID, "mlx", "q4_0", "q4_0"),
        (True, ON_GRID, "safetensors", "q4_0", "bf16"),
        (True, ON_GRID, "gguf", "q4_1", "q8_0"),
        (True, GridFit("absmax/7", 0.9, 0.0, 99), "gguf", "q4_0", "q8_0"),
        (True, OFF_GRID, "gguf", "q4_0", "q8_0"),
        (False, ON_GRID, "gguf", "q4_0", "q8_0"),
    ],
)
def test_a_table_on_the_grid_keeps_it_where_the_family_trains_tables(
    plan: Planner, checkpoint: Checkpoint, trained: bool, fit: GridFit, container: str, quant: str, expected: str
) -> None:
    """Rows of this model are too short for Q6_K, so that Q8_0 is the default."""
    source = replace(checkpoint, family=replace(checkpoint.family, tables_on_grid=trained))
    name = checkpoint.embedding.name
    planned = plan(quant, container, embedding=None, source=source, fits={name: fit})
    (table,) = by_role(planned, Role.EMBEDDING)
    assert table.encoding.name == expected
    assert table.choice.method == ("lattice" if expected == "q4_0" else "nearest")
    (table,) = by_role(plan("q4_0", embedding="q8_0", source=source, fits={name: fit}), Role.EMBEDDING)
    assert table.encoding.name == "q8_0"


@pytest.mark.parametrize(("method", "expected"), [("gptq", "q4_0"), ("lattice", "q4_0"), ("nearest", "q8_0")])
def test_a_table_gets_the_grids_type_only_with_a_method_that_keeps_the_grid(
    plan: Planner, checkpoint: Checkpoint, method: str, expected: str
) -> None:
    source = replace(checkpoint, family=replace(checkpoint.family, tables_on_grid=True))
    fits = {checkpoint.embedding.name: ON_GRID}
    (table,) = by_role(plan("q4_0", embedding=None, method=method, source=source, fits=fits), Role.EMBEDDING)
    assert table.encoding.name == expected
    assert table.choice.method == ("lattice" if expected == "q4_0" else "nearest")


def test_calibrated_methods_are_for_the_matrices_of_layers(plan: Planner) -> None:
    planned = plan("q4_0", method="gptq")
    assert {t.choice.method for t in by_role(planned, Role.MATRIX)} == {"gptq"}
    assert {t.choice.method for t in planned.tensors if t.source.place.role is not Role.MATRIX} == {"nearest"}
    assert not any(t.is_complete for t in by_role(planned, Role.MATRIX))
    assert {t.choice.method for t in by_role(plan("iq4_nl", method="gptq"), Role.MATRIX)} == {"gptq"}
    assert {t.choice.method for t in plan("q8_0", method="lattice").tensors} == {"nearest"}


def test_scales_are_portable_where_a_container_asks_for_it(plan: Planner) -> None:
    def portable(planned: Plan) -> set[bool]:
        return {t.choice.portable for t in by_role(planned, Role.MATRIX)}

    assert portable(plan("q4_0")) == {False}
    assert portable(plan("q4_0", "mlx")) == portable(plan("q4_0", shared=True)) == {True}
    assert portable(plan("q4_0", method="lattice", shared=True)) == {False}  # those of a grid are kept
    assert portable(plan("q4_0", method="lattice", portable=True)) == {True}


def test_scales_in_arrays_of_their_own_may_be_f16(plan: Planner) -> None:
    for scales in ("bf16", "f16"):
        matrix = by_role(plan("q4_0", "mlx", scales=scales), Role.MATRIX)[0]
        assert {piece.dtype for piece in matrix.pieces[1:]} == {scales.upper()}
    assert len(by_role(plan("q4_0", "gguf", scales="f16"), Role.MATRIX)[0].pieces) == 1


def test_types_that_a_container_cannot_hold_are_refused(plan: Planner) -> None:
    with pytest.raises(InputError, match="mlx cannot hold IQ4_NL") as refused:
        plan("iq4_nl", "mlx")
    assert "q4_0" in str(refused.value.hint)
    with pytest.raises(InputError, match="for the embedding"):
        plan("q4_0", "safetensors", embedding="q4_0")


@pytest.mark.parametrize("method", ["auto", "nearest"])
def test_what_needs_an_importance_matrix_is_refused_without(
    plan: Planner, tmp_path_factory: pytest.TempPathFactory, method: str
) -> None:
    wide = open_source(str(wide_models.write("like-1B", tmp_path_factory.mktemp("wide"))))
    with pytest.raises(UsageError, match="cannot be Q2_K without an importance matrix") as caught:
        plan("q2_k_s", source=wide, embedding=None, method=method)
    assert "--method importance" in str(caught.value.hint)
    assert plan("q2_k", source=wide, embedding="q2_k", method=method).counts["q2_k"] > 8
    assert {t.choice.method for t in by_role(plan("q2_k_s", source=wide, method="importance"), Role.MATRIX)} == {
        "importance"
    }


def test_the_first_down_projections_are_promoted_in_gguf_alone(
    plan: Planner, tmp_path_factory: pytest.TempPathFactory
) -> None:
    wide = open_source(str(wide_models.write("like-4B", tmp_path_factory.mktemp("wide"))))
    weighed = {"source": wide, "method": "importance"}
    promoted = [t.name for t in plan("q4_0", **weighed).tensors if t.encoding.name == "q4_1"]
    assert promoted == ["blk.0.ffn_down.weight", "blk.1.ffn_down.weight"]
    assert "q4_1" not in plan("q4_0", source=wide).counts
    assert "q4_1" not in plan("q4_0", shared=True, **weighed).counts
    assert "q4_1" not in plan("q4_0", portable=True, **weighed).counts
    assert "q4_1" not in plan("q4_0", "mlx", **weighed).counts


def test_rows_that_do_not_divide_fall_back_and_say_so(plan: Planner) -> None:
    planned = plan("q6_k")
    matrices = by_role(planned, Role.MATRIX)
    assert {t.encoding.name for t in matrices} == {"q8_0"}
    assert all(t.reason for t in matrices)
    assert any("Q8_0" in note for note in planned.notes)
