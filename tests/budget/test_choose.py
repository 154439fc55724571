"""The choice of types: what the user has chosen stays, what must be alike is, and it is the same every time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import made_up
import wide_models
from damage import small_model
from gemmaq.budget.choose import Source, choose
from gemmaq.budget.goal import Bits
from gemmaq.checkpoint import Checkpoint
from gemmaq.encodings import ENCODINGS
from gemmaq.errors import UsageError
from gemmaq.models.families import require_size
from gemmaq.models.roles import GATE, KEY, QUERY, UP, VALUE, Role
from gemmaq.planning.plan import Plan
from gemmaq.planning.recipe import Recipe, of
from gemmaq.planning.request import Request
from gemmaq.planning.rules import regex
from gemmaq.sources.open import open_source
from gemmaq.vram.weights import checkpoint_of


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return open_source(str(small_model(tmp_path_factory.mktemp("source") / "gemma-3-tiny")))


def source(model: Checkpoint, goal: Bits, recipe: Recipe, container: str = "gguf") -> Source:
    return Source(model, Request(recipe, (container,)), goal, made_up.sensitivities(model, container), {})


def of_kind(plan: Plan, *kinds: str) -> dict[int | None, set[str]]:
    """Layer -> types of its matrices of some kinds."""
    found: dict[int | None, set[str]] = {}
    for tensor in plan.tensors:
        if tensor.source.place.kind in kinds:
            found.setdefault(tensor.source.place.layer, set()).add(tensor.encoding.name)
    return found


def test_types_that_the_user_has_chosen_stay(model: Checkpoint) -> None:
    rule = regex("ffn_down", ENCODINGS["q5_1"])
    request = Request(of("q4_0", embedding="q8_0", rules=(rule,)), ("gguf",))
    plan = choose(Source(model, request, Bits(7), made_up.sensitivities(model), {})).plan
    assert {t.encoding.name for t in plan.tensors if "ffn_down" in t.name} == {"q5_1"}
    assert {t.encoding.name for t in plan.tensors if t.source.place.role == Role.EMBEDDING} == {"q8_0"}
    assert not any("down" in name or "embed" in name for name in plan.recipe.like)
    everything = regex(".", ENCODINGS["q4_0"])
    with pytest.raises(UsageError, match="no tensor is free"):
        choose(source(model, Bits(7), of("q4_0", rules=(everything,))))


def test_matrices_that_vllm_fuses_are_alike_and_others_need_not_be() -> None:
    checkpoint = checkpoint_of(require_size("26B-A4B"))
    plans = {name: choose(source(checkpoint, Bits(6), of("q4_0"), name)) for name in ("safetensors", "gguf")}
    for kinds in ((QUERY, KEY, VALUE), (GATE, UP), ("experts gate+up", "experts down")):
        assert all(len(types) == 1 for types in of_kind(plans["safetensors"].plan, *kinds).values())
        assert any(len(types) > 1 for types in of_kind(plans["gguf"].plan, *kinds).values())
    assert len(set().union(*of_kind(plans["safetensors"].plan, QUERY).values())) > 1


def test_types_that_a_method_does_not_write_are_not_chosen(tmp_path: Path) -> None:
    checkpoint = open_source(str(wide_models.write("like-1B", tmp_path / "model")))
    for method, grids in (("nearest", False), ("importance", True), ("gptq", False)):
        request = Request(of("q4_0", method=method), ("gguf",))
        plan = choose(Source(checkpoint, request, Bits(3.3), made_up.sensitivities(checkpoint), {})).plan
        layers = {t.encoding.name for t in plan.tensors if t.source.place.role.is_layer_matrix}
        assert bool(layers & {"iq3_xxs", "iq2_s", "iq2_xs", "iq2_xxs"}) == grids, method
        assert 3.2 < plan.bits_per_weight <= 3.3


def test_the_same_budget_gives_the_same_types(model: Checkpoint) -> None:
    asked = source(model, Bits(6), of("q4_0"), "mlx")
    assert choose(asked) == choose(replace(asked, sensitivities=made_up.sensitivities(model, "mlx")))


def test_more_bytes_never_lose_more(model: Checkpoint) -> None:
    asked = source(model, Bits(5), of("q4_0"))
    losses = [choose(replace(asked, goal=Bits(bits))).predicted for bits in (5, 5.5, 6, 7, 8.5, 12, 16.2)]
    assert losses == sorted(losses, reverse=True)
