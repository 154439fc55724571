"""Types to choose from, and what is predicted of plans."""

from __future__ import annotations

import pytest

import made_up
from damage import small_model
from gemmaq.budget.choose import Source
from gemmaq.budget.goal import Bits
from gemmaq.budget.options import Losses, candidates, free, fused, groups
from gemmaq.checkpoint import Checkpoint
from gemmaq.planning.recipe import of
from gemmaq.planning.request import Request
from gemmaq.planning.sensitivities import Group, Sensitivities
from gemmaq.sources.open import open_source


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return open_source(str(small_model(tmp_path_factory.mktemp("source") / "gemma-3-tiny")))


def test_every_container_has_types_and_bf16_to_choose_from() -> None:
    some = {"gguf": ("q4_0", "iq4_xs"), "mlx": ("affine3-g64", "mxfp4"), "safetensors": ("fp8", "q4_0")}
    for name, types in some.items():
        found = [encoding.name for encoding in candidates(name)]
        assert {*types, "bf16"} <= {*found} and not {"f32", "f16"} & {*found}


def test_options_have_the_bytes_that_a_plan_has(model: Checkpoint) -> None:
    request, losses = Request(of("q4_0"), ("gguf",)), Losses(made_up.sensitivities(model), "nearest")
    source = Source(model, request, Bits(4), losses.sensitivities, {})
    names = frozenset(name for group in losses.sensitivities.groups for name in group.names)
    found = groups(model, request, free(source.plan(request.recipe), request, names), losses=losses)
    assert {name for group in found for name in group.names} == names
    for kind in ("q4_0", "q8_0", "bf16"):
        plan = source.plan(of(kind, embedding=kind))
        sizes = sum(option.size for group in found for option in group.options if option.type == kind)
        assert sizes == sum(t.nbytes for t in plan.tensors if t.source.name in names)
        loss = sum(option.loss for group in found for option in group.options if option.type == kind)
        assert losses.predicted(plan) == pytest.approx(loss)
        assert (loss == 0) == (kind == "bf16")


def test_a_group_in_several_types_loses_what_its_tensors_have_a_share_in(model: Checkpoint) -> None:
    first, second, *_ = (t.name for t in model.tensors.values() if t.place.role.is_layer_matrix)
    group = Group((first, second), {"nearest": {"q4_0": 1.0, "q8_0": 0.1}}, ("q4_0",), (0.75, 0.25))
    known = Sensitivities("m", "", (), "", 1, 1, (group,))
    source = Source(model, Request(of("q8_0"), ("gguf",)), Bits(8), known, {})
    assert source.losses.predicted(source.plan(of("q4_0"))) == pytest.approx(1.0)
    assert source.losses.predicted(source.plan(of("q8_0"))) == pytest.approx(0.1)
    assert source.losses.predicted(source.plan(of("q5_0"))) is None


def test_matrices_with_one_input_are_fused(model: Checkpoint) -> None:
    layer = [[name.split(".")[-2] for name in names] for names in fused(model)[:4]]
    assert [len(names) for names in layer] == [3, 1, 2, 1]
